# quire::quire (shared, exports quire_* and nothing else) and quire::static, from one set of objects.
set(QUIRE_SOURCES "")
foreach(_folder kernels kernels/cpu allocators runtime)
  file(GLOB _found CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${_folder}/*.cpp")
  list(APPEND QUIRE_SOURCES ${_found})
endforeach()
if(QUIRE_HAVE_CUDA)
  foreach(_folder kernels/cuda allocators/cuda runtime/cuda)
    file(GLOB _found CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${_folder}/*.cu"
         "${PROJECT_SOURCE_DIR}/${_folder}/*.cpp")
    list(APPEND QUIRE_SOURCES ${_found})
  endforeach()
  # Instructions that compute capability 9.0 alone has, and no later one: called only after a check.
  file(GLOB QUIRE_SM90A_SOURCES CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/cuda/*_prefill.cu")
  list(REMOVE_ITEM QUIRE_SOURCES ${QUIRE_SM90A_SOURCES})
endif()

# Include folders: the public ones for users, the root for the library's own "runtime/..." names.
set(_public "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>" "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")

add_library(quire_objects OBJECT ${QUIRE_SOURCES})
target_include_directories(quire_objects PUBLIC "${PROJECT_SOURCE_DIR}/include" PRIVATE "${PROJECT_SOURCE_DIR}")
target_compile_definitions(quire_objects PRIVATE QUIRE_BUILDING=1 "QUIRE_MIMALLOC_SONAME=\"${QUIRE_MIMALLOC_SONAME}\"")
if(QUIRE_MIMALLOC_INCLUDE)
  target_include_directories(quire_objects SYSTEM PRIVATE "${QUIRE_MIMALLOC_INCLUDE}")
  target_compile_definitions(quire_objects PRIVATE QUIRE_HAVE_MIMALLOC=1)
endif()
set(QUIRE_LINK_LIBRARIES TBB::tbb hwy::hwy quire_highwayhash quire_xxhash Threads::Threads ${CMAKE_DL_LIBS} rt)
target_link_libraries(quire_objects PRIVATE quire_flags ${QUIRE_LINK_LIBRARIES})
set_target_properties(
  quire_objects PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden
                           CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
if(QUIRE_HAVE_CUDA)
  target_compile_definitions(quire_objects PRIVATE QUIRE_HAVE_CUDA=1)
  target_link_libraries(quire_objects PRIVATE CUDA::cudart_static)
  list(APPEND QUIRE_LINK_LIBRARIES CUDA::cudart_static)
  add_library(quire_sm90a_objects OBJECT ${QUIRE_SM90A_SOURCES})
  target_include_directories(quire_sm90a_objects PRIVATE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}")
  target_link_libraries(quire_sm90a_objects PRIVATE quire_flags)
  set_target_properties(
    quire_sm90a_objects PROPERTIES CUDA_ARCHITECTURES 90a-real POSITION_INDEPENDENT_CODE ON
                                   CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  set(QUIRE_OBJECTS $<TARGET_OBJECTS:quire_objects> $<TARGET_OBJECTS:quire_sm90a_objects>)
else()
  set(QUIRE_OBJECTS $<TARGET_OBJECTS:quire_objects>)
endif()
# A file named for an instruction set is compiled for it, and called only after a check at run time.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  foreach(_source ${QUIRE_SOURCES})
    if(_source MATCHES "_avx2\\.cpp$")
      set_source_files_properties("${_source}" PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mbmi2")
    elseif(_source MATCHES "_sse41\\.cpp$")
      set_source_files_properties("${_source}" PROPERTIES COMPILE_OPTIONS "-msse4.1")
    endif()
  endforeach()
endif()

# Before 1.0 every minor version may break the binary interface; after it, the major version does.
set(QUIRE_SOVERSION "${PROJECT_VERSION_MAJOR}")
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(QUIRE_SOVERSION "${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}")
endif()

set(QUIRE_CONFIG_CUDA "")
if(QUIRE_HAVE_CUDA)
  set(QUIRE_CONFIG_CUDA " CUDAToolkit")
endif()

add_library(quire SHARED ${QUIRE_OBJECTS})
add_library(quire::quire ALIAS quire)
target_link_libraries(quire PRIVATE quire_flags ${QUIRE_LINK_LIBRARIES})
target_include_directories(quire INTERFACE ${_public})
set(_exports "${PROJECT_SOURCE_DIR}/tools/cmake/quire.map")
# nodelete: streams and the timer are threads, and oneTBB's workers run code of ours; a host's dlclose
# leaves the library where it is.
target_link_options(quire PRIVATE "LINKER:--version-script=${_exports}" LINKER:--as-needed LINKER:-z,defs
                    LINKER:-z,relro LINKER:-z,nodelete)
set_target_properties(quire PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${QUIRE_SOVERSION} LINK_DEPENDS
                                       "${_exports}" LINKER_LANGUAGE CXX)

add_library(quire_static STATIC ${QUIRE_OBJECTS})
add_library(quire::static ALIAS quire_static)
# Those are headers only: whoever links the archive needs nothing of them.
set(_static_libraries ${QUIRE_LINK_LIBRARIES})
list(REMOVE_ITEM _static_libraries quire_highwayhash quire_xxhash)
target_link_libraries(quire_static INTERFACE ${_static_libraries})
target_include_directories(quire_static INTERFACE ${_public})
set_target_properties(quire_static PROPERTIES OUTPUT_NAME quire EXPORT_NAME static LINKER_LANGUAGE CXX)
