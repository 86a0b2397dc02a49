# Targets format, format-check and tidy: tools/lint, which also runs without CMake.
if(NOT PROJECT_IS_TOP_LEVEL)
  return()
endif()
set(_lint "${PROJECT_SOURCE_DIR}/tools/lint")
add_custom_target(format COMMAND "${_lint}" format USES_TERMINAL)
add_custom_target(format-check COMMAND "${_lint}" format-check USES_TERMINAL)
add_custom_target(tidy COMMAND "${_lint}" tidy "${PROJECT_BINARY_DIR}" USES_TERMINAL)
