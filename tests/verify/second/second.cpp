// Breadth-first search of the second model.  Arguments are NAME=VALUE, lists with commas; prints
// one line of JSON.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <sstream>
#include <unordered_set>

#include "owned.h"
#include "spectator.h"
#include "vlbr.h"

namespace {

std::map<std::string, std::string> options;

[[noreturn]] void refuse(const std::string &what) {
    std::fprintf(stderr, "second: %s\n", what.c_str());
    std::exit(2);
}

std::vector<std::string> list(const std::string &name) {
    std::vector<std::string> words;
    std::stringstream stream(options[name]);
    for (std::string word; std::getline(stream, word, ',');)
        if (!word.empty()) words.push_back(word);
    return words;
}

int number(const std::string &name, int least, int most) {
    int value = std::atoi(options[name].c_str());
    if (value < least || value > most) refuse(name + " is out of range");
    return value;
}

std::unique_ptr<Design> design_of(const std::string &name) {
    if (name == "request") return std::make_unique<Request>();
    if (name == "mediated-merged") return std::make_unique<MediatedMerged>();
    if (name.rfind("mediated-arch-lbr", 0) == 0) return std::make_unique<MediatedArchLbr>();
    if (name == "mediated") return std::make_unique<Mediated>();
    if (name == "lease") return std::make_unique<Lease>();
    if (name.rfind("arch-lbr-v2", 0) == 0) return std::make_unique<ArchLbrV2>();
    if (name == "kvm-legacy-6.12") return std::make_unique<KvmLegacy>(false, true);
    if (name == "kvm-legacy-designed") return std::make_unique<KvmLegacy>(true);
    if (name.rfind("kvm-legacy", 0) == 0) return std::make_unique<KvmLegacy>(false);
    refuse("no policy " + name);
}

}  // namespace

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        std::string word = argv[i];
        std::size_t at = word.find('=');
        if (at == std::string::npos) refuse("NAME=VALUE, not " + word);
        options[word.substr(0, at)] = word.substr(at + 1);
    }
    std::string policy = options["policy"];
    std::size_t suffix = policy.rfind("-lazy");
    bool lazy = suffix != std::string::npos && suffix + 5 == policy.size();
    std::unique_ptr<Design> design = design_of(lazy ? policy.substr(0, suffix) : policy);
    design->lazy = lazy;
    for (const std::string &flaw : list("flaws")) design->flaws.insert(flaw);
    if (design->has("both-scheduled")) design->sharing.vlbr_is_filtered = false;
    if (auto *vlbr = dynamic_cast<Vlbr *>(design.get()); vlbr && vlbr->has("late-freeze"))
        vlbr->late_freeze = true;

    Spectator spectator{*design, 0, {}, number("events", 1, 2)};
    for (const std::string &name : list("features")) {
        auto found = std::find(std::begin(FEATURES), std::end(FEATURES), name);
        if (found == std::end(FEATURES)) refuse("no feature " + name);
        spectator.features |= 1u << (found - std::begin(FEATURES));
    }
    for (const std::string &kind : list("kinds"))
        spectator.kinds.push_back(static_cast<Byte>(std::stoi(kind)));
    unsigned pruning = ~static_cast<unsigned>(number("ignore", 0, (1 << PROPERTIES) - 1));

    Machine start;
    start.size = {number("cpus", 1, MAX_CPUS), number("guests", 1, MAX_GUESTS),
                  number("depth", 1, MAX_DEPTH)};
    start.legacy = design->legacy;
    start.host_freezes = spectator.features & F_HOST_FREEZE;

    std::unordered_set<std::string> known{name_of(start.w, start.size)};
    std::vector<Machine> level{start}, next;
    std::size_t transitions = 0;
    int diameter = 0;
    std::map<int, int> first;  // property -> steps of the shortest way
    for (;; diameter++) {
        next.clear();
        for (Machine &state : level)
            for (const Action &action : spectator.possible(state)) {
                Machine after = state;
                unsigned broken = spectator.happen(after, action);
                transitions++;
                for (int p = 0; p < PROPERTIES; p++)
                    if (broken >> p & 1) first.emplace(p, diameter + 1);
                if (broken & pruning) continue;
                if (known.insert(name_of(after.w, after.size)).second) next.push_back(after);
            }
        if (next.empty()) break;
        level.swap(next);
    }

    std::printf("{\"states\": %zu, \"transitions\": %zu, \"diameter\": %d, \"broken\": {",
                known.size(), transitions, diameter);
    const char *comma = "";
    for (auto [property, steps] : first) {
        std::printf("%s\"%s\": %d", comma, NAMES[property], steps);
        comma = ", ";
    }
    std::puts("}}");
}
