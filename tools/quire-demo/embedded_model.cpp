// The assembler puts the file into the program, so that the demo runs from any folder. It looks for
// the name in the include folders, of which the demo's own is one.
#include "embedded_model.h"

// NOLINTNEXTLINE(hicpp-no-assembler): C++20 has no #embed.
__asm__(
    ".pushsection .rodata\n"
    ".balign 64\n"
    ".global quire_demo_model_begin\n"
    ".hidden quire_demo_model_begin\n"
    "quire_demo_model_begin:\n"
    ".incbin \"model/bytelm64.f16.bin\"\n"
    ".global quire_demo_model_end\n"
    ".hidden quire_demo_model_end\n"
    "quire_demo_model_end:\n"
    ".popsection\n");

extern "C" {
extern const std::byte quire_demo_model_begin[];
extern const std::byte quire_demo_model_end[];
}

namespace quire::demo {

std::span<const std::byte> embedded_model() {
  return {quire_demo_model_begin, quire_demo_model_end};
}

}  // namespace quire::demo
