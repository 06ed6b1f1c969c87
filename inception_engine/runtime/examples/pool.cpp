// A pool of threads that share an engine, each with a context of its own: jobs go into a queue, results are futures.
//
//   g++ -std=c++17 pool.cpp -linception_engine -pthread -o pool
//   ./pool googlenet.plan 4 100      # threads, frames: frame i is all of grey level i mod 256
#include <inception_engine.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

struct Free {
  void operator()(ie_engine* engine) const { ie_engine_free(engine); }
  void operator()(ie_context* context) const { ie_context_free(context); }
};
using Context = std::unique_ptr<ie_context, Free>;

class Pool {
 public:
  // One thread per context: many frames at once take more than one frame by many threads.
  Pool(const char* plan, unsigned threads) {
    char message[IE_MESSAGE_BYTES];
    ie_engine* engine = nullptr;
    if (ie_engine_load(plan, nullptr, &engine, message) != IE_OK) throw std::runtime_error(message);
    engine_.reset(engine);
    info_.struct_size = sizeof info_;
    ie_engine_describe(engine, &info_);
    std::vector<Context> contexts;
    for (unsigned i = 0; i < threads; ++i) {
      ie_context_options options{};
      options.struct_size = sizeof options;
      options.threads = 1;
      ie_context* context = nullptr;
      if (ie_context_create(engine, &options, &context, message) != IE_OK) throw std::runtime_error(message);
      contexts.emplace_back(context);
    }
    for (Context& context : contexts) threads_.emplace_back(&Pool::serve, this, std::move(context));
  }

  // Finishes what is in the queue.
  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    filled_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  size_t frame_bytes() const { return size_t{info_.height} * info_.width * info_.channels; }

  // The logits of a frame of uint8 (height, width, channels).
  std::future<std::vector<float>> run(std::vector<uint8_t> frame) {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back({std::move(frame), {}});
    filled_.notify_one();
    return jobs_.back().result.get_future();
  }

 private:
  struct Job {
    std::vector<uint8_t> frame;
    std::promise<std::vector<float>> result;
  };

  void serve(Context context) {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      filled_.wait(lock, [this] { return closed_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      std::vector<float> logits(info_.classes);
      const ie_input input{sizeof input, IE_UINT8_NHWC, 1, job.frame.data()};
      const ie_output output{sizeof output, 0, logits.data()};
      if (ie_run(context.get(), &input, &output, 1) == IE_OK) {
        job.result.set_value(std::move(logits));
      } else {
        const std::runtime_error why(ie_context_message(context.get()));
        job.result.set_exception(std::make_exception_ptr(why));
      }
    }
  }

  std::unique_ptr<ie_engine, Free> engine_;
  ie_engine_info info_{};
  std::mutex mutex_;
  std::condition_variable filled_;
  std::deque<Job> jobs_;
  bool closed_ = false;
  std::vector<std::thread> threads_;
};

int main(int argc, char** argv) try {
  if (argc != 4) throw std::runtime_error("usage: pool PLAN THREADS FRAMES");
  if (std::atoi(argv[2]) < 1) throw std::runtime_error("at least one thread");  // who else takes the jobs
  Pool pool(argv[1], unsigned(std::atoi(argv[2])));
  std::vector<std::future<std::vector<float>>> results;
  for (int i = 0; i < std::atoi(argv[3]); ++i) {
    results.push_back(pool.run(std::vector<uint8_t>(pool.frame_bytes(), uint8_t(i))));
  }
  for (auto& result : results) {
    const std::vector<float> logits = result.get();
    const auto best = std::max_element(logits.begin(), logits.end());
    std::printf("%td %.9g\n", best - logits.begin(), double(*best));
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "pool: %s\n", error.what());
  return 2;
}
