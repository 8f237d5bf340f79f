/* Products of chosen columns of a tall matrix with thin ones, which never gather these columns. docs/kernels.md.

   All is float32, row by row. Ranks are in lines: thin matrices have `lanes` numbers a row, a multiple of LANES. Each
   result is formed by one thread, in an order that does not depend on how many there are. A function without a
   `FOR_EACH_CPU` is called by all threads at once, which do not wait for each other at its end; and SPAN tokens at a
   time, for which all its operands' numbers stay in the cache. */

#include "cpu.h"

typedef struct {
  const float *numbers;   /* (tokens x width) */
  const int32_t *columns; /* the chosen ones' numbers */
  integer tokens, width, kept, lanes;
} tall;

/* packed (rows x lanes) = scale * a matrix that lies anyhow. */
FOR_EACH_CPU
static void pack_line(float *packed, const float *from, integer stride, integer ranks, integer lanes, float scale) {
  if (stride == 1)
    for (integer j = 0; j < ranks; j++) packed[j] = scale * from[j];
  else
    for (integer j = 0; j < ranks; j++) packed[j] = scale * from[j * stride];
  for (integer j = ranks; j < lanes; j++) packed[j] = 0;
}

static void pack(float *packed, const float *from, integer rows, integer row_stride, integer column_stride,
                 integer ranks, integer lanes, float scale) {
  #pragma omp for schedule(static) nowait
  for (integer i = 0; i < rows; i++)
    pack_line(packed + i * lanes, from + i * row_stride, column_stride, ranks, lanes, scale);
}

/* ROWS tokens by `lines` lines of ranks, whose sums stay in registers: with two lines a number that has been loaded
   serves twice. */
INLINE void multiply_lines(float *result, const float *rows, const float *factor, const tall *at, int lines) {
  line sums[ROWS][2] = {{{0}}};
  for (integer j = 0; j < at->kept; j++, factor += at->lanes) {
    const float *column = rows + at->columns[j];
    for (int i = 0; i < ROWS; i++)
      for (int k = 0; k < lines; k++) sums[i][k] += column[i * at->width] * *as_line(factor + k * LANES);
  }
  for (int i = 0; i < ROWS; i++)
    for (int k = 0; k < lines; k++) *as_line(result + i * at->lanes + k * LANES) = sums[i][k];
}

FOR_EACH_CPU
static void multiply(float *result, const float *rows, const float *factor, const tall *at) {
  integer c = 0;
  for (; c + 2 * LANES <= at->lanes; c += 2 * LANES) multiply_lines(result + c, rows, factor + c, at, 2);
  if (c < at->lanes) multiply_lines(result + c, rows, factor + c, at, 1);
}

/* result = chosen columns x packed factor (kept x lanes). `result` has room for whole blocks of ROWS tokens, `room` for
   one such block of the matrix. */
static void times(float *result, const float *factor, float *room, const tall *at) {
  const integer blocks = (at->tokens + ROWS - 1) / ROWS, width = at->width;
  #pragma omp for schedule(static) nowait
  for (integer block = 0; block < blocks; block++) {
    const integer first = block * ROWS, some = at->tokens - first < ROWS ? at->tokens - first : ROWS;
    const float *rows = at->numbers + first * width;
    if (some < ROWS) { /* the last block alone */
      memcpy(room, rows, some * width * sizeof *room);
      memset(room + some * width, 0, (ROWS - some) * width * sizeof *room);
      rows = room;
    }
    multiply(result + first * at->lanes, rows, factor, at);
  }
}

#define AHEAD 16

INLINE void add_lines(float *out, const float *rows, const float *packed, const integer *column, integer kept,
                      integer tokens, const tall *at, int lines) {
  line sums[ROWS][2] = {{{0}}};
  for (int i = 0; i < kept; i++)
    for (int k = 0; k < lines; k++) sums[i][k] = *as_line(out + i * at->lanes + k * LANES);
  for (integer t = 0; t < tokens; t++, rows += at->width, packed += at->lanes) {
    /* Rows are further apart than a processor looks ahead by itself. */
    __builtin_prefetch(rows + AHEAD * at->width + column[0]);
    __builtin_prefetch(rows + AHEAD * at->width + column[ROWS - 1]);
    for (int i = 0; i < ROWS; i++)
      for (int k = 0; k < lines; k++) sums[i][k] += rows[column[i]] * *as_line(packed + k * LANES);
  }
  for (int i = 0; i < kept; i++)
    for (int k = 0; k < lines; k++) *as_line(out + i * at->lanes + k * LANES) = sums[i][k];
}

FOR_EACH_CPU
static void add_outer(float *out, const float *rows, const float *packed, const int32_t *columns, integer kept,
                      integer tokens, const tall *at) {
  integer column[ROWS], c = 0;
  for (int i = 0; i < ROWS; i++) column[i] = columns[i < kept ? i : 0];
  for (; c + 2 * LANES <= at->lanes; c += 2 * LANES)
    add_lines(out + c, rows, packed + c, column, kept, tokens, at, 2);
  if (c < at->lanes) add_lines(out + c, rows, packed + c, column, kept, tokens, at, 1);
}

/* result (kept x lanes) += transpose of the chosen columns x other (tokens x lanes). */
static void add_transposed(float *result, const float *other, const tall *at) {
  const integer blocks = (at->kept + ROWS - 1) / ROWS;
  #pragma omp for schedule(static) nowait
  for (integer block = 0; block < blocks; block++) {
    const integer first = block * ROWS, kept = at->kept - first < ROWS ? at->kept - first : ROWS;
    add_outer(result + first * at->lanes, at->numbers, other, at->columns + first, kept, at->tokens, at);
  }
}
