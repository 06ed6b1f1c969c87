// A reader of JSON (RFC 8259) for text from strangers: one pass, nothing kept but what the caller keeps, nesting bounded.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ie {

// Stands before the next value or sign. What is not JSON throws Malformed.
class JsonReader {
 public:
  struct Malformed {
    const char* expected;
  };

  explicit JsonReader(std::string_view text) : next_(text.data()), end_(text.data() + text.size()) {}

  // Calls member(key) for each member of an object, which must read its value; value() for each item of an array.
  template <typename Member>
  void object(Member member);
  template <typename Value>
  void array(Value value);
  // Appends the string's UTF-8; null: to nothing.
  void string(std::string* text);
  // Of a number as it is written.
  std::string_view number();
  // Whether the value is `true`; reads any value.
  bool is_true();
  void skip();
  // Bytes that are still to be read.
  size_t rest() const { return size_t(end_ - next_); }
  // Nothing but space may follow.
  void end();

 private:
  static constexpr int kMaxDepth = 64;

  char peek();  // the next sign that is no space
  bool take(char sign);
  void expect(char sign, const char* what);
  unsigned hex4();
  void escape(std::string* text);
  void utf8(std::string* text);
  bool word(std::string_view word);

  const char* next_;
  const char* end_;
  int depth_ = 0;
};

template <typename Member>
void JsonReader::object(Member member) {
  expect('{', "an object");
  if (++depth_ > kMaxDepth) throw Malformed{"less nesting"};
  if (!take('}')) {
    do {
      std::string key;
      string(&key);
      expect(':', "a colon");
      member(key);
    } while (take(','));
    expect('}', "a comma or the end of an object");
  }
  --depth_;
}

template <typename Value>
void JsonReader::array(Value value) {
  expect('[', "an array");
  if (++depth_ > kMaxDepth) throw Malformed{"less nesting"};
  if (!take(']')) {
    do {
      value();
    } while (take(','));
    expect(']', "a comma or the end of an array");
  }
  --depth_;
}

}  // namespace ie
