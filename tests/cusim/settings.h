// What a test wants of the simulated device: `cusim.conf` beside the library, lines of NAME=VALUE. Not the
// environment, because a worker process gets none.
//   devices=1             how many there are
//   memory_mb=1024        memory of each
//   trace=FILE            every driver call is appended, one a line
//   fail=cuMemAlloc_v2@2=2   the second call of cuMemAlloc_v2 fails with error 2; several: separated by commas
//   launch_delay_us=0     every launch takes this long at least
#pragma once
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <string>

namespace cusim {

class Settings {
public:
    static Settings &get()
    {
        static Settings settings;
        return settings;
    }

    long number(const std::string &name, long otherwise) const
    {
        auto found = values.find(name);
        return found == values.end() ? otherwise : std::atol(found->second.c_str());
    }

    // Notes a driver call; returns the error it must fail with, or 0.
    int enter(const char *function)
    {
        std::lock_guard lock(mutex);
        const long call = ++calls[function];
        if (auto trace = values.find("trace"); trace != values.end())
            std::ofstream(trace->second, std::ios::app) << function << "\n";
        auto found = values.find("fail");
        if (found == values.end())
            return 0;
        for (const char *at = found->second.c_str(); *at;) {
            char name[64];
            long which = 0;
            int error = 0;
            if (std::sscanf(at, "%63[^@]@%ld=%d", name, &which, &error) == 3 && function == std::string(name) && which == call)
                return error;
            while (*at && *at++ != ',') {
            }
        }
        return 0;
    }

private:
    std::map<std::string, std::string> values;
    std::map<std::string, long> calls;
    std::mutex mutex;

    Settings()
    {
        Dl_info here;
        if (!dladdr((void *)&Settings::get, &here) || !here.dli_fname)
            return;
        const std::string library = here.dli_fname;
        std::ifstream file(library.substr(0, library.rfind('/') + 1) + "cusim.conf");
        for (std::string line; std::getline(file, line);)
            if (auto equals = line.find('='); equals != std::string::npos)
                values[line.substr(0, equals)] = line.substr(equals + 1);
    }
};

}  // namespace cusim
