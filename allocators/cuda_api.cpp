#include "allocators/cuda_api.h"

#include <algorithm>
#include <iterator>

namespace quire {
namespace {

// Values of cudaError_t, whose names follow.
constexpr CudaError kLasting[] = {
    4,    // CudartUnloading
    214,  // ECCUncorrectable
    220,  // NvlinkUncorrectable
    700,  // IllegalAddress
    702,  // LaunchTimeout
    709,  // ContextIsDestroyed
    710,  // Assert
    714,  // HardwareStackError
    715,  // IllegalInstruction
    716,  // MisalignedAddress
    717,  // InvalidAddressSpace
    718,  // InvalidPc
    719,  // LaunchFailure
};
constexpr CudaError kAbsence[] = {
    3,    // InitializationError
    34,   // StubLibrary
    35,   // InsufficientDriver
    36,   // CallRequiresNewerDriver
    46,   // DevicesUnavailable
    100,  // NoDevice
    101,  // InvalidDevice
    500,  // SymbolNotFound
    803,  // SystemDriverMismatch
    804,  // CompatNotSupportedOnDevice
};

bool is_one_of(CudaError error, const CudaError *first, const CudaError *last) noexcept {
  return std::find(first, last, error) != last;
}

Status status_value(CudaError error) noexcept {
  if (error == kCudaSuccess) return Status::kOk;
  if (error == kCudaNotReady) return Status::kAgain;
  if (error == kCudaOutOfMemory) return Status::kNomem;
  if (cuda_error_is_absence(error)) return Status::kUnsupported;
  switch (error) {
    case kCudaInvalidValue:
    case 400:  // InvalidResourceHandle
    case 201:  // DeviceUninitialized: CUDA's "invalid context"
      return Status::kInvalid;
    case 801:  // NotSupported
      return Status::kUnsupported;
    default:
      // What a capturing stream may not do: 900 to 908.
      return error >= 900 && error <= 908 ? Status::kInvalid : Status::kDevice;
  }
}

}  // namespace

bool cuda_error_is_lasting(CudaError error) noexcept {
  return is_one_of(error, std::begin(kLasting), std::end(kLasting));
}

bool cuda_error_is_absence(CudaError error) noexcept {
  return is_one_of(error, std::begin(kAbsence), std::end(kAbsence));
}

Status cuda_status(CudaApi &api, CudaError error, const char *what) noexcept {
  if (error == kCudaSuccess) return Status::kOk;
  api.clear_error();
  const Status status = status_value(error);
  return status == Status::kAgain
             ? status
             : set_error(status, "%s: CUDA error %d, %s", what, error, api.error_text(error));
}

CudaScope::CudaScope(CudaApi &api, void *context) noexcept : api_(api) {
  error_ = api_.current_context(&before_);
  if (error_ != kCudaSuccess) return;
  if (before_ != context) {
    error_ = api_.set_context(context);
    if (error_ != kCudaSuccess) return;
    changed_ = true;
  }
  // A failure leaves the mode, and mode_, what it was: then there is nothing to put back.
  int mode = 2;
  if (api_.exchange_capture_mode(&mode) == kCudaSuccess) mode_ = mode;
}

CudaScope::~CudaScope() {
  if (mode_ != 2) static_cast<void>(api_.exchange_capture_mode(&mode_));
  if (changed_) static_cast<void>(api_.set_context(before_));
}

#ifndef QUIRE_HAVE_CUDA
CudaApi *cuda_api() noexcept {
  return nullptr;
}
#endif

}  // namespace quire
