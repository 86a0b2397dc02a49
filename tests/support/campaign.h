// Campaign: cases of a model, run to prove an algorithm, and run again for each mutant of it, to
// prove that the cases can fail.
//
//   prove(cases)        each case exhaustively within its bounds (or so many executions), then as a
//                       random walk; prints how many executions there were. Throws what fails
//   campaign(cases, f)  each mutant (tests/support/mutation.h) of the places in the files `f` that
//                       the cases pass, each in a process of its own, until a case fails: killed; or
//                       nothing does: survived. A survivor must stand in tests/model/survivors.txt,
//                       with the reason why it is harmless; then and only then it passes
//
// QUIRE_MUTANTS=all runs every mutant, with more executions each, and also complains about lines of
// survivors.txt that are killed; a number runs a sample of that many, which is what CTest does (a
// few seconds). QUIRE_MUTANT=TEXT runs those whose line in survivors.txt would contain the text, with
// all effort. tests/model/mutants runs all of all tests.
//
// A mutant that never ends, crashes or aborts is killed too. Where no process can be forked or a
// sanitizer would make it pointless, the campaign is skipped and says so.
#ifndef QUIRE_TESTS_SUPPORT_CAMPAIGN_H_
#define QUIRE_TESTS_SUPPORT_CAMPAIGN_H_

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/support/mutation.h"
#include "tests/support/scheduler.h"

namespace quire::model {

struct ModelCase {
  const char *name;
  Bounds bounds;
  // Sets up, spawns, runs and judges one execution.
  std::function<void(Scheduler &)> run;
  // Executions of the exhaustive part; fewer if there are no more.
  uint64_t most = 60000;
  uint64_t seeds = 4000;
};

inline void walk(const ModelCase &one, uint64_t seed) {
  // From a switch at every other atomic to long runs of one thread.
  Scheduler s(seed, 2 + static_cast<uint32_t>(seed % 7), 2 + static_cast<uint32_t>(seed / 7 % 4));
  one.run(s);
}

// Returns all executions.
inline uint64_t prove(const std::vector<ModelCase> &cases) {
  uint64_t total = 0;
  for (const ModelCase &one : cases) {
    try {
#if defined(QUIRE_MODEL_SANITIZED)
      // One real thread: there is only memory to look after, not schedules.
      const uint64_t most = one.most / 400, walks = one.seeds / 10;
#else
      const uint64_t most = one.most, walks = one.seeds;
#endif
      const uint64_t executions = explore(one.bounds, one.run, most);
      const uint64_t seeds = for_each_seed(walks, [&](uint64_t seed) { walk(one, seed); });
      std::printf("%s: %llu executions (%s: %u preemptions, %u stale), %llu random walks\n",
                  one.name, static_cast<unsigned long long>(executions),
                  executions < most ? "all" : "the first", one.bounds.preemptions, one.bounds.stale,
                  static_cast<unsigned long long>(seeds));
      total += executions + seeds;
    } catch (const std::exception &e) {
      // In full here: a test framework may cut a long message.
      std::printf("%s: %s\n", one.name, e.what());
      const std::string what = e.what();
      throw std::runtime_error(std::string(one.name) + ": " + what.substr(0, what.find('\n')));
    }
  }
  return total;
}

namespace detail {

// The file from the sources' folder on. A compiler cache may have made its name relative to the
// build folder.
inline std::string file_of(const Site &site, const std::string &root) {
  std::string file = site.file;
  if (file.compare(0, root.size() + 1, root + "/") == 0) return file.substr(root.size() + 1);
  while (file.compare(0, 3, "../") == 0) file.erase(0, 3);
  return file;
}

inline std::string source_line(const Site &site, const std::string &root) {
  std::ifstream file(root + "/" + file_of(site, root));
  std::string line;
  for (uint32_t i = 0; i < site.line && std::getline(file, line); ++i) {
  }
  const size_t first = line.find_first_not_of(" \t");
  return first == std::string::npos ? "?" : line.substr(first);
}

// "runtime/limbo.h | header_->count.fetch_add(1, kAcqRel); | acq_rel -> acquire"
inline std::string key_of(const Mutation &mutant, const std::string &root) {
  return file_of(mutant.site, root) + " | " + source_line(mutant.site, root) + " | " +
         name_of(mutant);
}

inline std::string trimmed(const std::string &text) {
  const size_t first = text.find_first_not_of(' '), last = text.find_last_not_of(' ');
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

// Lines "# file | source | mutation | reason" of survivors.txt: key to reason.
inline std::map<std::string, std::string> expected_survivors(const std::string &path) {
  std::map<std::string, std::string> expected;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t reason = line.rfind(" | ");
    if (reason == std::string::npos) continue;
    expected[trimmed(line.substr(0, reason))] = trimmed(line.substr(reason + 3));
  }
  return expected;
}

struct Effort {
  uint64_t seeds, executions;
  rlim_t seconds;
};

// In a child. Says who killed it through `to`.
[[noreturn]] inline void try_mutant(const std::vector<ModelCase> &cases, const Mutation &mutant,
                                    const Effort &effort, int to) {
  Mutator::get().set(mutant);
  // Of processor time: a machine that is busy with other things changes no verdict.
  const rlimit limit{effort.seconds, effort.seconds + 1};
  setrlimit(RLIMIT_CPU, &limit);
  std::string killer;
  try {
    // In turns, so that no case makes the others wait; cheap walks first.
    for (uint64_t from = 0; from < effort.seeds && killer.empty(); from += 250) {
      for (const ModelCase &one : cases) {
        killer = one.name;
        for (uint64_t seed = from + 1; seed <= from + 250; ++seed) walk(one, seed);
      }
      killer.clear();
    }
    for (const ModelCase &one : cases) {
      killer = std::string(one.name) + ", exhaustive";
      explore(one.bounds, one.run, effort.executions);
    }
    killer.clear();
  } catch (const std::exception &e) {
    const std::string what = e.what();
    killer += ": " + what.substr(0, what.find('\n'));
  }
  if (!killer.empty() && write(to, killer.data(), std::min<size_t>(killer.size(), 200)) < 0) {
    _exit(2);
  }
  _exit(killer.empty() ? 0 : 1);
}

// Empty: survived.
inline std::string killer_of(const std::vector<ModelCase> &cases, const Mutation &mutant,
                             const Effort &effort) {
  int ends[2];
  if (pipe(ends) != 0) return "";
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    if (std::freopen("/dev/null", "w", stdout) == nullptr) _exit(2);
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(2);
    try_mutant(cases, mutant, effort, ends[1]);
  }
  close(ends[1]);
  std::string killer;
  char text[256];
  for (ssize_t n = 0; (n = read(ends[0], text, sizeof text)) > 0;) {
    killer.append(text, static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return "";
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
  if (WIFSIGNALED(status)) {
    // Out of time is no verdict: the cases were just not all run.
    if (WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL) return "";
    killer = "signal " + std::to_string(WTERMSIG(status));
  }
  return killer.empty() ? "exit" : killer;
}

}  // namespace detail

struct CampaignResult {
  uint64_t mutants = 0, tried = 0, killed = 0;
  std::vector<std::string> unexpected;  // survivors without a reason; killed ones that have one
  bool skipped = false;
};

// files: ends of file names whose places are mutated. root: the sources' folder.
inline CampaignResult campaign(const std::vector<ModelCase> &cases,
                               const std::vector<std::string> &files, const std::string &root,
                               size_t sample = 6) {
  CampaignResult result;
#if defined(QUIRE_MODEL_SANITIZED)
  std::printf("SKIPPED: mutants under a sanitizer\n");
  result.skipped = true;
  return result;
#endif
  bool all = false;
  if (const char *wanted = std::getenv("QUIRE_MUTANTS")) {
    all = std::string(wanted) == "all";
    if (!all) sample = std::strtoull(wanted, nullptr, 10);
  }
  const char *only = std::getenv("QUIRE_MUTANT");
  if (only != nullptr) all = true;
  constexpr detail::Effort kAll{10000, 30000, 40}, kLittle{2000, 2000, 20};
  const detail::Effort effort = all ? kAll : kLittle;
  Mutator::get().record(true);
  for (const ModelCase &one : cases) {
    for (uint64_t seed = 1; seed <= 200; ++seed) walk(one, seed);
  }
  Mutator::get().record(false);
  std::vector<Mutation> mutants;
  for (const Mutation &mutant : Mutator::get().mutants()) {
    for (const std::string &file : files) {
      const std::string &in = mutant.site.file;
      const bool ends =
          in.size() >= file.size() && in.compare(in.size() - file.size(), file.size(), file) == 0;
      if (ends) mutants.push_back(mutant);
    }
  }
  result.mutants = mutants.size();
  const auto expected = detail::expected_survivors(root + "/tests/model/survivors.txt");
  const size_t every =
      all || sample == 0 || mutants.size() <= sample ? 1 : (mutants.size() + sample - 1) / sample;
  std::map<std::string, bool> needless;  // lines of survivors.txt: whether all places were killed
  for (size_t i = 0; i < mutants.size(); i += every) {
    const std::string key = detail::key_of(mutants[i], root);
    if (only != nullptr && key.find(only) == std::string::npos) continue;
    const auto known = expected.find(key);
    // In a sample there is no point in waiting for what is known to survive.
    if (!all && known != expected.end()) continue;
    std::string killer = detail::killer_of(cases, mutants[i], effort);
    // Little effort finds most; only with all of it does it mean something to survive. A large
    // number is a quick look at all of them, and takes what little effort says.
    if (killer.empty() && !all && sample < 100) killer = detail::killer_of(cases, mutants[i], kAll);
    ++result.tried;
    result.killed += killer.empty() ? 0U : 1U;
    const char *verdict = killer.empty() ? "SURVIVED" : "killed";
    std::printf("%-8s %s (line %u)%s%s\n", verdict, key.c_str(), mutants[i].site.line,
                killer.empty() ? "" : " by ", killer.c_str());
    std::fflush(stdout);
    // Places that read alike share a line; it is in order if one of them survives.
    if (killer.empty() && known == expected.end()) result.unexpected.push_back(key);
    if (known != expected.end()) {
      const auto line = needless.emplace(key, true).first;
      line->second &= !killer.empty();
    }
  }
  for (const auto &[key, is_needless] : needless) {
    if (is_needless) result.unexpected.push_back(key + " (killed)");
  }
  std::printf(
      "%llu mutants, %llu tried, %llu killed, %zu verdicts that survivors.txt does not say\n",
      static_cast<unsigned long long>(result.mutants),
      static_cast<unsigned long long>(result.tried), static_cast<unsigned long long>(result.killed),
      result.unexpected.size());
  return result;
}

}  // namespace quire::model

#endif  // QUIRE_TESTS_SUPPORT_CAMPAIGN_H_
