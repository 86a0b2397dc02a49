# Options, and the flags that every target of this project is compiled with (quire_flags).
option(QUIRE_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(QUIRE_BUILD_TOOLS "Build the tools" ${PROJECT_IS_TOP_LEVEL})
option(QUIRE_BUILD_BENCH "Build quire-bench (one of the tools)" ON)
option(QUIRE_BUILD_DEMO "Build quire-demo (one of the tools)" ON)
option(QUIRE_INSTALL "Generate install rules" ${PROJECT_IS_TOP_LEVEL})
option(QUIRE_WERROR "Treat warnings as errors" ${PROJECT_IS_TOP_LEVEL})
option(QUIRE_COVERAGE "Instrument for gcov" OFF)
option(QUIRE_ASSERTIONS "Keep assert() and the validate() calls of debug builds" OFF)
set(QUIRE_SANITIZE "" CACHE STRING "Sanitizers: empty, 'address;undefined' or 'thread'")
set(QUIRE_CUDA "AUTO" CACHE STRING "CUDA backend: AUTO (where nvcc is found), ON or OFF")
set_property(CACHE QUIRE_CUDA PROPERTY STRINGS AUTO ON OFF)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_EXTENSIONS OFF)
# Executables of the build folder look for shared libraries in ../lib first. There tools/bundle puts
# all that they need; RPATH rather than RUNPATH, as only that serves the libraries' own needs too.
set(CMAKE_BUILD_RPATH "\$ORIGIN/../lib")

if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
  set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
  set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
  find_program(QUIRE_CCACHE ccache)
  if(QUIRE_CCACHE)
    foreach(_lang C CXX CUDA)
      if(NOT DEFINED CMAKE_${_lang}_COMPILER_LAUNCHER)
        set(CMAKE_${_lang}_COMPILER_LAUNCHER "${QUIRE_CCACHE}")
      endif()
    endforeach()
  endif()
endif()

# AUTO takes CUDA where it works: an nvcc that knows C++20 (12.0 on) and accepts the host compiler.
# nvcc is often installed but not on PATH.
set(QUIRE_HAVE_CUDA OFF)
if(NOT QUIRE_CUDA STREQUAL "OFF")
  find_program(QUIRE_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda
               PATH_SUFFIXES bin)
  set(_nvcc_version 0)
  if(QUIRE_NVCC)
    execute_process(COMMAND "${QUIRE_NVCC}" --version OUTPUT_VARIABLE _nvcc_says)
    if(_nvcc_says MATCHES "release ([0-9]+\\.[0-9]+)")
      set(_nvcc_version "${CMAKE_MATCH_1}")
    endif()
  endif()
  if(_nvcc_version VERSION_GREATER_EQUAL 12.0)
    set(CMAKE_CUDA_COMPILER "${QUIRE_NVCC}" CACHE FILEPATH "CUDA compiler")
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      # Machine code for the two generations in use, PTX for those that follow.
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)
    endif()
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      enable_language(CUDA)
      find_package(CUDAToolkit REQUIRED)
      set(QUIRE_HAVE_CUDA ON)
    endif()
  endif()
  if(QUIRE_CUDA STREQUAL "ON" AND NOT QUIRE_HAVE_CUDA)
    message(FATAL_ERROR "QUIRE_CUDA=ON, but no nvcc of 12.0 or newer works here (CUDACXX may name one)")
  endif()
endif()
message(STATUS "Quire ${PROJECT_VERSION}: CUDA ${QUIRE_HAVE_CUDA}")

# C and C++ flags only: nvcc gets its own list below.
add_library(quire_flags INTERFACE)
set(_c_or_cxx "$<COMPILE_LANGUAGE:C,CXX>")
set(_cxx "$<COMPILE_LANGUAGE:CXX>")
target_compile_features(quire_flags INTERFACE cxx_std_20 c_std_99)
target_link_options(quire_flags INTERFACE LINKER:--disable-new-dtags)
# Codecs promise equal bits on every backend, so no compiler may fuse a multiply with an add.
target_compile_options(quire_flags INTERFACE "$<${_c_or_cxx}:-ffp-contract=off>"
                                             "$<${_c_or_cxx}:-fno-omit-frame-pointer>")
target_compile_options(
  quire_flags
  INTERFACE "$<${_c_or_cxx}:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wsign-conversion>"
            "$<${_c_or_cxx}:-Wformat=2;-Wundef;-Wvla;-Wcast-align;-Wimplicit-fallthrough>"
            "$<${_cxx}:-Wnon-virtual-dtor;-Woverloaded-virtual;-Wextra-semi>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(quire_flags INTERFACE "$<${_c_or_cxx}:-Wduplicated-cond;-Wlogical-op>")
  if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # gcc 12 sees overlapping copies inside of operator+(const char *, std::string): its bug 105651.
    target_compile_options(quire_flags INTERFACE "$<${_cxx}:-Wno-restrict>")
  endif()
endif()
if(QUIRE_WERROR)
  target_compile_options(quire_flags INTERFACE "$<${_c_or_cxx}:-Werror>")
endif()
if(QUIRE_HAVE_CUDA)
  # nvcc knows C++20 since 12.0, CMake that it does since 3.26: so the option is written out.
  target_compile_options(
    quire_flags INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>"
                          "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-fno-omit-frame-pointer>"
                          "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>")
  if(QUIRE_WERROR)
    target_compile_options(quire_flags
                           INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Werror>")
  endif()
endif()

if(QUIRE_ASSERTIONS)
  target_compile_options(quire_flags INTERFACE -UNDEBUG)
  target_compile_definitions(quire_flags INTERFACE QUIRE_ASSERTIONS=1 _GLIBCXX_ASSERTIONS)
endif()
if(QUIRE_SANITIZE)
  list(JOIN QUIRE_SANITIZE "," _sanitizers)
  target_compile_options(quire_flags INTERFACE "$<${_c_or_cxx}:-fsanitize=${_sanitizers};-fno-sanitize-recover=all>")
  target_link_options(quire_flags INTERFACE "-fsanitize=${_sanitizers}")
  # Instrumented code defeats gcc's flow analysis: it then warns of what the other presets prove sound.
  target_compile_options(quire_flags INTERFACE "$<${_cxx}:-Wno-maybe-uninitialized>")
endif()
if(QUIRE_COVERAGE)
  target_compile_options(quire_flags INTERFACE "$<${_c_or_cxx}:--coverage;-fprofile-update=atomic>")
  target_link_options(quire_flags INTERFACE --coverage)
endif()
