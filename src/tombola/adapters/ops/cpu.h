/* What the C of this folder shares: numbers of 16 and 32 bits, lines of a vector register's width, parts of a job. */

#include <stdint.h>
#include <string.h>

#define LANES 16  /* floats of a cache line, and of a vector register where those are widest */
#define SPAN 128  /* tokens at a time: that much of both operands stays in a core's second-level cache */
#define ROWS 8    /* lines of sums that are kept in registers */

/* The first call picks the version for the machine's processor, so that a build may be used on another machine. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

#define INLINE static inline __attribute__((always_inline)) /* into each of those versions */

typedef float line __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t bits __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t half_line __attribute__((vector_size(32), aligned(2), may_alias));
typedef int32_t places __attribute__((vector_size(64)));
typedef int64_t integer;

static inline line *as_line(const float *numbers) { return (line *)numbers; }

static inline float from_half(uint16_t number) {
  uint32_t word = (uint32_t)number << 16;
  float result;
  memcpy(&result, &word, 4);
  return result;
}

static inline line loaded(const void *matrix, integer half, integer at) {
  if (!half) return *as_line((const float *)matrix + at);
  return (line)(__builtin_convertvector(*(const half_line *)((const uint16_t *)matrix + at), bits) << 16);
}

typedef float half_of_line __attribute__((vector_size(32)));
typedef float quarter __attribute__((vector_size(16)));

static inline float total(const line *sums) {
  const half_of_line *halves = (const half_of_line *)sums, pair = halves[0] + halves[1];
  const quarter *quarters = (const quarter *)&pair, four = quarters[0] + quarters[1];
  return (four[0] + four[2]) + (four[1] + four[3]);
}
