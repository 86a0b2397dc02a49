// The public headers: C99 takes quire.h and page_format.h with all warnings (unit/quire_h_c99.c),
// C++ takes them too, and the names of the statuses and the version say what they must.
#define BOOST_TEST_MODULE api_header
#include <boost/test/unit_test.hpp>

#include <cstring>
#include <set>
#include <string>

#include "quire/page_format.h"
#include "quire/quire.h"

extern "C" int quire_h_c99(void);

BOOST_AUTO_TEST_CASE(c99_serves_through_the_header) {
  BOOST_TEST(quire_h_c99() == 0);
}

BOOST_AUTO_TEST_CASE(every_status_has_its_text) {
  std::set<std::string> texts;
#define CHECK_STATUS(name, value, text)                       \
  BOOST_TEST(int{name} == value);                             \
  BOOST_TEST(quire_status_string(name) == std::string(text)); \
  BOOST_TEST(texts.insert(quire_status_string(name)).second);
  QUIRE_STATUS_TABLE(CHECK_STATUS)
#undef CHECK_STATUS
  BOOST_TEST(quire_status_string(static_cast<quire_status>(15)) == std::string("unknown status"));
}

BOOST_AUTO_TEST_CASE(version_is_the_headers) {
  BOOST_TEST(quire_version() == static_cast<uint32_t>(QUIRE_VERSION_NUMBER));
}

BOOST_AUTO_TEST_CASE(init_zeroes_and_sets_the_size) {
  quire_acquire_options options;
  std::memset(&options, 0xff, sizeof options);
  QUIRE_INIT(&options);
  BOOST_TEST(options.size == sizeof options);
  BOOST_TEST(options.flags == 0u);
  BOOST_TEST(options.stream == nullptr);
}
