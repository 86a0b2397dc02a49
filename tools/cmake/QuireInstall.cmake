# What `cmake --install` leaves: headers, libquire.so, libquire.a, the tools, a CMake package
# (quire::quire, quire::static) and two pkg-config files (quire, quire-static).
# The package finds the static library's dependencies only where they are installed: a user of the
# shared library needs none of their headers.
if(NOT QUIRE_INSTALL)
  return()
endif()
include(CMakePackageConfigHelpers)

set(_package "${CMAKE_INSTALL_LIBDIR}/cmake/quire")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/quire" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(TARGETS quire EXPORT quire-shared)
install(TARGETS quire_static EXPORT quire-static)
install(EXPORT quire-shared NAMESPACE quire:: DESTINATION "${_package}" FILE quire-shared-targets.cmake)
install(EXPORT quire-static NAMESPACE quire:: DESTINATION "${_package}" FILE quire-static-targets.cmake)

configure_package_config_file("${PROJECT_SOURCE_DIR}/tools/cmake/quire-config.cmake.in"
                              "${PROJECT_BINARY_DIR}/quire-config.cmake" INSTALL_DESTINATION "${_package}")
set(_compatibility SameMajorVersion)
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(_compatibility SameMinorVersion)
endif()
write_basic_package_version_file("${PROJECT_BINARY_DIR}/quire-config-version.cmake"
                                 COMPATIBILITY ${_compatibility})
install(FILES "${PROJECT_BINARY_DIR}/quire-config.cmake" "${PROJECT_BINARY_DIR}/quire-config-version.cmake"
        DESTINATION "${_package}")

# pkg-config: the prefix is found from the file's own place, so that an installed tree can be moved.
file(RELATIVE_PATH QUIRE_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" QUIRE_PC_PREFIX "${QUIRE_PC_PREFIX}")
set(QUIRE_PC_STATIC_LIBS "-ltbb -lhwy -lstdc++ -lm -ldl -lrt -pthread")
if(QUIRE_HAVE_CUDA)
  string(PREPEND QUIRE_PC_STATIC_LIBS "-L${CUDAToolkit_LIBRARY_DIR} -lcudart_static ")
endif()
foreach(_pc quire quire-static)
  configure_file("${PROJECT_SOURCE_DIR}/tools/cmake/${_pc}.pc.in" "${PROJECT_BINARY_DIR}/${_pc}.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/${_pc}.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endforeach()
