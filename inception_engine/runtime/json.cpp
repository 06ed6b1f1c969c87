#include "json.h"

namespace ie {
namespace {

bool is_digit(char sign) { return sign >= '0' && sign <= '9'; }

void append(std::string* text, unsigned point) {
  if (point < 0x80) {
    text->push_back(char(point));
    return;
  }
  const int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  static constexpr unsigned kLead[4] = {0, 0xC0, 0xE0, 0xF0};
  text->push_back(char(kLead[more] | point >> (6 * more)));
  for (int i = more - 1; i >= 0; --i) text->push_back(char(0x80 | (point >> (6 * i) & 0x3F)));
}

}  // namespace

char JsonReader::peek() {
  while (next_ != end_ && (*next_ == ' ' || *next_ == '\t' || *next_ == '\n' || *next_ == '\r')) ++next_;
  return next_ == end_ ? '\0' : *next_;
}

bool JsonReader::take(char sign) {
  if (peek() != sign || next_ == end_) return false;
  ++next_;
  return true;
}

void JsonReader::expect(char sign, const char* what) {
  if (!take(sign)) throw Malformed{what};
}

void JsonReader::string(std::string* text) {
  expect('"', "a string");
  while (next_ != end_) {
    const auto sign = static_cast<unsigned char>(*next_);
    if (sign == '"') {
      ++next_;
      return;
    }
    if (sign < 0x20) throw Malformed{"a string without control characters"};
    if (sign == '\\') {
      escape(text);
    } else if (sign < 0x80) {
      if (text != nullptr) text->push_back(*next_);
      ++next_;
    } else {
      utf8(text);
    }
  }
  throw Malformed{"the end of a string"};
}

unsigned JsonReader::hex4() {
  unsigned value = 0;
  for (int i = 0; i < 4; ++i, ++next_) {
    if (next_ == end_) throw Malformed{"four hexadecimal digits"};
    const char sign = *next_, lower = char(sign | 0x20);
    if (!is_digit(sign) && !(lower >= 'a' && lower <= 'f')) throw Malformed{"four hexadecimal digits"};
    value = value * 16 + unsigned(is_digit(sign) ? sign - '0' : lower - 'a' + 10);
  }
  return value;
}

void JsonReader::escape(std::string* text) {
  static constexpr std::string_view kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
  if (++next_ == end_) throw Malformed{"the end of an escape"};
  const char name = *next_++;
  const size_t known = kNames.find(name);
  if (known != std::string_view::npos) {
    if (text != nullptr) text->push_back(kMeanings[known]);
    return;
  }
  if (name != 'u') throw Malformed{"a known escape"};
  constexpr unsigned kReplacement = 0xFFFD;
  unsigned point = hex4();
  if (point >= 0xD800 && point < 0xDC00 && end_ - next_ >= 6 && next_[0] == '\\' && next_[1] == 'u') {
    const char* behind = next_;
    next_ += 2;
    const unsigned low = hex4();
    if (low >= 0xDC00 && low < 0xE000) {
      point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
    } else {
      next_ = behind;
    }
  }
  if (text != nullptr) append(text, point >= 0xD800 && point < 0xE000 ? kReplacement : point);
}

// A character of two to four bytes, in its shortest form and no surrogate.
void JsonReader::utf8(std::string* text) {
  const auto lead = static_cast<unsigned char>(*next_);
  const int more = lead >= 0xC2 && lead < 0xE0   ? 1
                   : lead >= 0xE0 && lead < 0xF0 ? 2
                   : lead >= 0xF0 && lead < 0xF5 ? 3
                                                 : 0;
  if (more == 0 || end_ - next_ <= more) throw Malformed{"valid UTF-8"};
  unsigned point = lead & (0x3Fu >> more);
  for (int i = 1; i <= more; ++i) {
    const auto part = static_cast<unsigned char>(next_[i]);
    if ((part & 0xC0) != 0x80) throw Malformed{"valid UTF-8"};
    point = point << 6 | (part & 0x3F);
  }
  const unsigned least = more == 1 ? 0x80 : more == 2 ? 0x800 : 0x10000;
  if (point < least || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
    throw Malformed{"valid UTF-8"};
  if (text != nullptr) text->append(next_, size_t(more) + 1);
  next_ += more + 1;
}

std::string_view JsonReader::number() {
  peek();
  const char* begin = next_;
  const auto digits = [&] {
    if (next_ == end_ || !is_digit(*next_)) throw Malformed{"a number"};
    while (next_ != end_ && is_digit(*next_)) ++next_;
  };
  if (next_ != end_ && *next_ == '-') ++next_;
  if (next_ != end_ && *next_ == '0') {
    ++next_;
  } else {
    digits();
  }
  if (next_ != end_ && *next_ == '.') {
    ++next_;
    digits();
  }
  if (next_ != end_ && (*next_ == 'e' || *next_ == 'E')) {
    if (++next_ != end_ && (*next_ == '+' || *next_ == '-')) ++next_;
    digits();
  }
  return {begin, size_t(next_ - begin)};
}

bool JsonReader::word(std::string_view word) {
  if (size_t(end_ - next_) < word.size() || std::string_view(next_, word.size()) != word) return false;
  next_ += word.size();
  return true;
}

bool JsonReader::is_true() {
  const bool found = peek() == 't';
  skip();
  return found;
}

void JsonReader::skip() {
  switch (peek()) {
    case '{':
      object([this](const std::string&) { skip(); });
      break;
    case '[':
      array([this] { skip(); });
      break;
    case '"':
      string(nullptr);
      break;
    case 't':
    case 'f':
    case 'n':
      if (!word("true") && !word("false") && !word("null")) throw Malformed{"a value"};
      break;
    default:
      number();
  }
}

void JsonReader::end() {
  peek();
  if (next_ != end_) throw Malformed{"nothing behind the object"};
}

}  // namespace ie
