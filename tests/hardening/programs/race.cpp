// Two threads that count in one place without order: what threads.cpp must not do, and proof that it would be seen.
#include <thread>

int main() {
  int count = 0;
  const auto add = [&count] {
    for (int i = 0; i < 1000; ++i) ++count;
  };
  std::thread one(add), two(add);
  one.join();
  two.join();
  return count == 0;
}
