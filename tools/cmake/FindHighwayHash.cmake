# HighwayHash::highwayhash. The package has no CMake or pkg-config files. The static archive is taken
# where it is position independent (Debian's and Ubuntu's are), so that libquire.so needs one library
# less; QUIRE_HIGHWAYHASH_SHARED=ON asks for the shared one.
option(QUIRE_HIGHWAYHASH_SHARED "Link libhighwayhash.so instead of the archive" OFF)
find_path(HIGHWAYHASH_INCLUDE_DIR highwayhash/highwayhash.h)
if(NOT QUIRE_HIGHWAYHASH_SHARED)
  find_library(HIGHWAYHASH_LIBRARY NAMES libhighwayhash.a)
endif()
find_library(HIGHWAYHASH_LIBRARY NAMES highwayhash)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  HighwayHash REQUIRED_VARS HIGHWAYHASH_LIBRARY HIGHWAYHASH_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "its package is libhighwayhash-dev on Debian and Ubuntu")
mark_as_advanced(HIGHWAYHASH_LIBRARY HIGHWAYHASH_INCLUDE_DIR)
if(HighwayHash_FOUND AND NOT TARGET HighwayHash::highwayhash)
  add_library(HighwayHash::highwayhash UNKNOWN IMPORTED)
  set_target_properties(
    HighwayHash::highwayhash PROPERTIES IMPORTED_LOCATION "${HIGHWAYHASH_LIBRARY}"
                                        INTERFACE_INCLUDE_DIRECTORIES "${HIGHWAYHASH_INCLUDE_DIR}")
endif()
