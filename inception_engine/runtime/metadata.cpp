#include "metadata.h"

#include <locale.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "json.h"
#include "plan.h"

namespace ie {
namespace {

// As in network.py.
const double kMean[3] = {123.675, 116.28, 103.53};
const double kStd[3] = {58.395, 57.12, 57.375};

[[noreturn]] void refuse(const std::string& why) {
  throw Refusal{IE_PLAN_METADATA, "the plan's description of the network is damaged: " + why};
}

double as_double(std::string_view number) {
  static const locale_t kPlain = newlocale(LC_ALL_MASK, "C", nullptr);  // whatever the program has set
  return strtod_l(std::string(number).c_str(), nullptr, kPlain);
}

uint32_t as_pixels(std::string_view number) {
  const bool whole = number.size() <= 9 && number.find_first_not_of("0123456789") == std::string_view::npos;
  const uint32_t value = whole ? uint32_t(std::strtoul(std::string(number).c_str(), nullptr, 10)) : 0;
  if (value < 1) refuse("resize to " + std::string(number.substr(0, 20)));
  return value;
}

class DescriptionReader {
 public:
  DescriptionReader(std::string_view json, uint32_t channels, uint32_t classes)
      : json_(json), channels_(channels), classes_(classes) {}

  Description read() {
    made_.mean.assign(std::begin(kMean), std::end(kMean));
    made_.std.assign(std::begin(kStd), std::end(kStd));
    json_.object([this](const std::string& key) {
      if (key == "name") {
        made_.name.clear();
        json_.string(&made_.name);
        made_.name.shrink_to_fit();
      } else if (key == "labels") {
        read_labels();
      } else if (key == "preprocess") {
        json_.object([this](const std::string& field) { read_field(field); });
      } else if (key == "random_weights") {
        made_.random_weights = json_.is_true();
      } else {
        json_.skip();
      }
    });
    json_.end();
    if (const size_t count = made_.labels.begin.size(); count != 0 && count != classes_) {
      refuse(std::to_string(count) + " labels for " + std::to_string(classes_) + " classes");
    }
    const size_t longer = std::max(made_.mean.size(), made_.std.size());
    spread(&made_.mean, longer);
    spread(&made_.std, longer);
    const auto unusable = [](double value) { return !std::isfinite(float(value)); };
    if (std::any_of(made_.mean.begin(), made_.mean.end(), unusable) ||
        std::any_of(made_.std.begin(), made_.std.end(), unusable) ||
        std::any_of(made_.std.begin(), made_.std.end(), [](double value) { return float(value) == 0.0f; })) {
      refuse("a mean or deviation is not finite, or a deviation is 0");
    }
    return std::move(made_);
  }

 private:
  // Room is made once, for no more than the rest of the text can hold: growing would take twice as much for a while.
  void read_labels() {
    Labels& labels = made_.labels;
    labels = {};
    labels.begin.reserve(std::min<size_t>(classes_, json_.rest() / 3));
    labels.text.reserve(json_.rest());
    json_.array([&] {
      if (labels.begin.size() == classes_)
        refuse("more labels than " + std::to_string(classes_) + " classes");
      labels.begin.push_back(uint32_t(labels.text.size()));
      json_.string(&labels.text);
      labels.text.push_back('\0');
    });
    labels.begin.shrink_to_fit();
    labels.text.shrink_to_fit();
  }

  void read_field(const std::string& field) {
    if (field == "mean") {
      read_numbers(&made_.mean);
    } else if (field == "std") {
      read_numbers(&made_.std);
    } else if (field == "resize") {
      made_.resize = as_pixels(json_.number());
    } else if (field == "order") {
      std::string order;
      json_.string(&order);
      if (order != "RGB" && order != "BGR") refuse("a channel order that is neither RGB nor BGR");
      made_.bgr = order == "BGR";
    } else {  // it would mean something else than what is done here
      refuse("a field of the preprocessing that is not known");
    }
  }

  void read_numbers(std::vector<double>* numbers) {
    numbers->clear();
    numbers->reserve(std::min<size_t>(channels_, json_.rest() / 2));
    json_.array([&] {
      if (numbers->size() == channels_) refuse("more means or deviations than channels");
      numbers->push_back(as_double(json_.number()));
    });
  }

  // One value serves all channels. No more are stored than the text has: it may speak of very many channels.
  void spread(std::vector<double>* numbers, size_t longer) const {
    if (numbers->size() != 1 && numbers->size() != channels_) {
      refuse(std::to_string(numbers->size()) + " means or deviations for " + std::to_string(channels_) +
             " channels");
    }
    numbers->resize(longer, numbers->front());
  }

  JsonReader json_;
  uint32_t channels_, classes_;
  Description made_;
};

}  // namespace

Description read_description(std::string_view json, uint32_t channels, uint32_t classes) {
  try {
    return DescriptionReader(json, channels, classes).read();
  } catch (const JsonReader::Malformed& malformed) {
    refuse(std::string("not JSON: expected ") + malformed.expected);
  }
}

}  // namespace ie
