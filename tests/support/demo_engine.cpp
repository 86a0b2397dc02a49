// quire-demo's engine, for the tests of it: everything but its main(), reports and embedded model.
// The tool's own build sees the public headers only; this one is the same text in one unit.
#include "tools/quire-demo/chat.cpp"
#include "tools/quire-demo/engine.cpp"
#include "tools/quire-demo/forward.cpp"
#include "tools/quire-demo/matmul.cpp"
#include "tools/quire-demo/model.cpp"
#include "tools/quire-demo/plain_backend.cpp"
#include "tools/quire-demo/prompts.cpp"
#include "tools/quire-demo/quality.cpp"
#include "tools/quire-demo/workers.cpp"
#include "tools/quire-demo/workload.cpp"
