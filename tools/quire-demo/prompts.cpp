#include "prompts.h"

#include <cstdio>
#include <random>

namespace quire::demo {

const std::array<std::string_view, 5> kSystemPrompts = {
    R"(The query planner has to choose between a sequential scan and an index
scan for each table of a query. It reads the statistics that ANALYZE has
collected, estimates how many rows each condition keeps, and takes the
plan with the lowest total cost. If the statistics are old, the estimate
can be wrong. The steps below were run against a test database;
the result is given after each.
)",
    R"(A checkpoint writes all changed pages to the database file and then
marks the log so that recovery can start from this point. If the system
fails between two checkpoints, the records of the log are read again from
the last one, in order. A checkpoint that comes too often causes many
writes; one that comes too late makes recovery slow. The notes below
are of a busy server under load.
)",
    R"(Every connection to the database holds its own cache of prepared
statements. When the schema changes, a statement that was compiled before
the change must be compiled again before it can run. This is done without
any action by the application, but it takes time. The application should
finalize each statement that it no longer needs. The following lines are
taken from such a session.
)",
    R"(A transaction that reads a row sees the version that was committed
before the transaction began. Old versions of rows stay in the table until
no transaction can see them, and then VACUUM marks their space as free. If
a transaction stays open for a long time, dead rows cannot be removed and
the table grows. Below is the record of a table that had grown, and of
what was done about it.
)",
    R"(The backup function copies the pages of one database into another while
other connections may still use the source. If a page is changed by a
different process during the copy, the backup starts again from the first
page. A large step copies many pages at once but holds the lock longer.
The destination must not be used until the backup is complete. Here the
progress of one is shown.
)"};

const std::array<ChatScript, 3> kChats = {{
    {R"(Questions about indexes and their answers. An index is a structure that
lets the database find rows without reading the whole table.
)",
     {"\nCan an index be used for sorting? ", "\nWhen is an index not used? ",
      "\nWhat does an index cost? "}},
    {R"(Questions about transactions and their answers. A transaction is a group
of changes that are made together or not at all.
)",
     {"\nWhat happens after a crash? ", "\nHow long is a lock held? ",
      "\nCan a transaction be nested? "}},
    {R"(Questions about data types and their answers. Each column of a table has
a type that says which values it can hold.
)",
     {"\nWhat is the type of a literal? ", "\nHow is a date stored? ",
      "\nWhat is the result of NULL = NULL? "}},
}};

const std::string_view kCalibrationText =
    R"(To load a table from a file, first create the table with columns that match
the fields of the file, and then use the copy command. Each line of the file
becomes one row. An empty field is read as an empty string, unless the column
is numeric, in which case it is read as NULL. Errors are reported with the
number of the line; rows that were read before the error are not kept.
)";

std::vector<uint32_t> to_tokens(std::string_view text) {
  std::vector<uint32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::string to_text(std::span<const uint32_t> tokens) {
  std::string text;
  for (const uint32_t token : tokens) text.push_back(static_cast<char>(token));
  return text;
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c >= 0x20 && c < 0x7F) {
      out += c;
    } else {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x",
                    static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += escape;
    }
  }
  return out;
}

std::string observation(uint64_t seed, size_t call, size_t step) {
  // One draw a step, from a state of its own: the answer does not depend on who asked before.
  std::mt19937_64 random(seed * 1'000'003 + call * 1'009 + step);
  const std::string number = std::to_string(100 + random() % 900);
  static constexpr std::array<std::array<std::string_view, 2>, 5> kForms = {
      {{"Rows: ", ".\nThe "},
       {"", " pages.\nThis "},
       {"Cost ", ".\nThe "},
       {"", " ms.\nIf "},
       {"", " errors.\nIt "}}};
  const auto &[before, after] = kForms[random() % kForms.size()];
  std::string text(step == 0 ? "" : "\n");
  return text.append(before).append(number).append(after);
}

}  // namespace quire::demo
