/* Products of chosen columns of a tall matrix with thin ones, which never gather these columns. docs/kernels.md.

   The tall matrix lies row by row, in float32 or, where `half` is set, bfloat16; all else is float32. Thin matrices
   have `lanes` numbers in a row, a multiple of LANES. Each result is formed by one thread, in an order that does not
   depend on how many there are. */

#include "cpu.h"

typedef struct {
  const void *numbers;    /* (tokens x width) */
  const int32_t *columns; /* the chosen ones' numbers */
  integer tokens, width, kept, half, lanes, threads;
} tall;

FOR_EACH_CPU
static void widen(float *to, const void *matrix, integer half, integer at, integer numbers) {
  integer i = 0;
  for (; i + LANES <= numbers; i += LANES) *as_line(to + i) = loaded(matrix, half, at + i);
  for (; i < numbers; i++)
    to[i] = half ? from_half(((const uint16_t *)matrix)[at + i]) : ((const float *)matrix)[at + i];
}

FOR_EACH_CPU
static void multiply(float *thin, const float *rows, const float *factor, const tall *at) {
  for (integer c = 0; c < at->lanes; c += LANES) {
    line sums[ROWS] = {{0}};
    for (integer j = 0; j < at->kept; j++) {
      const float *column = rows + at->columns[j];
      for (integer i = 0; i < ROWS; i++) sums[i] += column[i * at->width] * *as_line(factor + j * at->lanes + c);
    }
    for (integer i = 0; i < ROWS; i++) *as_line(thin + i * at->lanes + c) = sums[i];
  }
}

/* thin = chosen columns x factor (kept x lanes). `thin` has room for whole blocks of ROWS tokens, `room` for such a
   block of the matrix for each thread. */
void times_factor(float *thin, const float *factor, float *room, const tall *at) {
  const integer blocks = (at->tokens + ROWS - 1) / ROWS, width = at->width, parts = at->threads;
  #pragma omp parallel for num_threads(at->threads) schedule(static)
  for (integer part = 0; part < parts; part++) {
    float *own = room + part * ROWS * width;
    for (integer block = blocks * part / parts; block < blocks * (part + 1) / parts; block++) {
      const integer first = block * ROWS, some = at->tokens - first < ROWS ? at->tokens - first : ROWS;
      const float *rows = (const float *)at->numbers + first * width;
      if (at->half || some < ROWS) {
        widen(own, at->numbers, at->half, first * width, some * width);
        memset(own + some * width, 0, (ROWS - some) * width * sizeof *own);
        rows = own;
      }
      multiply(thin + first * at->lanes, rows, factor, at);
    }
  }
}

FOR_EACH_CPU
static void add_outer(float *out, const float *rows, const float *thin, const int32_t *columns, integer kept,
                      integer tokens, const tall *at) {
  integer column[ROWS];
  for (integer i = 0; i < ROWS; i++) column[i] = columns[i < kept ? i : 0];
  for (integer c = 0; c < at->lanes; c += LANES) {
    line sums[ROWS] = {{0}};
    for (integer i = 0; i < kept; i++) sums[i] = *as_line(out + i * at->lanes + c);
    for (integer t = 0; t < tokens; t++)
      for (integer i = 0; i < ROWS; i++)
        sums[i] += rows[t * at->width + column[i]] * *as_line(thin + t * at->lanes + c);
    for (integer i = 0; i < kept; i++) *as_line(out + i * at->lanes + c) = sums[i];
  }
}

/* out (kept x lanes) = transpose of the chosen columns x thin (tokens x lanes). `room` is for SPAN tokens. */
void transposed_times(float *out, const float *thin, float *room, const tall *at) {
  const integer blocks = (at->kept + ROWS - 1) / ROWS, parts = at->threads;
  if (!at->kept) return;
  memset(out, 0, at->kept * at->lanes * sizeof *out);
  #pragma omp parallel num_threads(at->threads)
  for (integer start = 0; start < at->tokens; start += SPAN) {
    const integer some = at->tokens - start < SPAN ? at->tokens - start : SPAN, numbers = some * at->width;
    if (at->half) {
      #pragma omp for schedule(static)
      for (integer part = 0; part < parts; part++) {
        const integer first = numbers * part / parts, end = numbers * (part + 1) / parts;
        widen(room + first, at->numbers, 1, start * at->width + first, end - first);
      }
    }
    const float *rows = at->half ? room : (const float *)at->numbers + start * at->width;
    #pragma omp for schedule(static)
    for (integer block = 0; block < blocks; block++) {
      const integer first = block * ROWS, kept = at->kept - first < ROWS ? at->kept - first : ROWS;
      add_outer(out + first * at->lanes, rows, thin + start * at->lanes, at->columns + first, kept, some, at);
    }
  }
}
