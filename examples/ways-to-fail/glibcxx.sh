# GLIBCXX_3.4.30 not found. Built with a compiler of today, and an older libstdc++ is found first, as when a conda
# environment, a MATLAB or a Steam runtime puts its own in front.
cat > glibcxx.cc <<'C'
#include <condition_variable>
#include <mutex>
std::mutex lock;
std::condition_variable bell;
void wait() { std::unique_lock<std::mutex> held(lock); bell.wait(held); }
C
g++ -O2 -shared -fPIC -o glibcxx.so glibcxx.cc
mkdir -p old && cp "$BULLSEYE/usr/lib/$(gcc -print-multiarch)/libstdc++.so.6" old/
