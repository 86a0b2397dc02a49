// A C++ library of somebody else's, loaded into the host before libquire: it takes memory that the
// host gives back, gives back what the host took, and throws through the host.
#include <dlfcn.h>

#include <new>
#include <stdexcept>
#include <string>

extern "C" {

std::string *plugin_string(const char *text) {
  return new std::string(text);
}

void plugin_delete(std::string *text) {
  delete text;
}

void plugin_throw(const std::string &text) {
  throw std::runtime_error(text);
}

// What the plugin's own calls of operator new are bound to.
void *plugin_operator_new() {
  return reinterpret_cast<void *>(static_cast<void *(*)(std::size_t)>(&::operator new));
}
}
