/* A sparse delta on a CPU: its sum with the weight, and its gradient. docs/kernels.md says why and how fast.

   Matrices lie row by row, in float32 or, where `half` is set, bfloat16; a delta and its gradient are float32. Each
   result is formed by one thread, in an order that does not depend on how many there are. */

#include "cpu.h"

typedef struct { /* elements (block 1), or aligned block x block tiles, of a weight (rows x columns) */
  const int32_t *index; /* their numbers, row by row, ascending */
  integer units, rows, columns, block, half, threads;
} chosen;

static inline uint16_t to_half(float number) { /* to nearest, ties to even */
  uint32_t word;
  memcpy(&word, &number, 4);
  if ((word & 0x7fffffff) > 0x7f800000) return (uint16_t)(word >> 16); /* not a number; a sum's has bit 22 set */
  return (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

static integer first_from(const int32_t *index, integer units, integer number) {
  integer low = 0;
  while (low < units) {
    integer middle = (low + units) / 2;
    if (index[middle] < number) low = middle + 1; else units = middle;
  }
  return low;
}

/* ---- weight + delta ---- */

/* out = weight + delta, for elements. */
void add_elements(void *out, const void *weight, const float *delta, const chosen *at) {
  const integer numbers = at->rows * at->columns, width = at->half ? 2 : 4, piece = 4096;
  const int32_t *index = at->index;
  #pragma omp parallel for num_threads(at->threads) schedule(static)
  for (integer start = 0; start < numbers; start += piece) {
    const integer end = start + piece < numbers ? start + piece : numbers;
    memcpy((char *)out + start * width, (const char *)weight + start * width, (end - start) * width);
    for (integer u = first_from(index, at->units, start); u < at->units && index[u] < end; u++) {
      if (at->half) ((uint16_t *)out)[index[u]] = to_half(from_half(((uint16_t *)out)[index[u]]) + delta[u]);
      else ((float *)out)[index[u]] += delta[u];
    }
  }
}

/* Where a line of a tile lies in the weight. */
static inline char *line_of(void *weight, const chosen *at, integer unit, integer row) {
  const integer across = at->columns / at->block, down = at->index[unit] / across, aside = at->index[unit] % across;
  return (char *)weight + ((down * at->block + row) * at->columns + aside * at->block) * (at->half ? 2 : 4);
}

/* Adds the delta to tiles of the weight itself; `saved` takes what was there. */
void lend_tiles(void *weight, void *saved, const float *delta, const chosen *at) {
  const integer block = at->block, bytes = block * (at->half ? 2 : 4);
  #pragma omp parallel for num_threads(at->threads) schedule(static)
  for (integer u = 0; u < at->units; u++)
    for (integer r = 0; r < block; r++) {
      char *here = line_of(weight, at, u, r);
      const float *added = delta + (u * block + r) * block;
      memcpy((char *)saved + (u * block + r) * bytes, here, bytes);
      for (integer c = 0; c < block; c++) {
        if (at->half) ((uint16_t *)here)[c] = to_half(from_half(((uint16_t *)here)[c]) + added[c]);
        else ((float *)here)[c] += added[c];
      }
    }
}

/* Puts back what `lend_tiles` saved. */
void restore_tiles(void *weight, const void *saved, const chosen *at) {
  const integer block = at->block, bytes = block * (at->half ? 2 : 4);
  #pragma omp parallel for num_threads(at->threads) schedule(static)
  for (integer u = 0; u < at->units; u++)
    for (integer r = 0; r < block; r++)
      memcpy(line_of(weight, at, u, r), (const char *)saved + (u * block + r) * bytes, bytes);
}

/* ---- the chosen part of grad^T x ---- */

static inline line loaded_some(const void *matrix, integer half, integer at, integer numbers) {
  line result = {0};
  if (numbers == LANES) return loaded(matrix, half, at);
  for (integer i = 0; i < numbers; i++)
    result[i] = half ? from_half(((const uint16_t *)matrix)[at + i]) : ((const float *)matrix)[at + i];
  return result;
}

/* `block` columns of some tokens, side by side. */
FOR_EACH_CPU
static void pack(float *packed, const void *matrix, integer half, integer width, integer column, integer block,
                 integer tokens) {
  for (integer t = 0; t < tokens; t++)
    for (integer c = 0; c < block; c += LANES)
      *as_line(packed + t * block + c) = loaded(matrix, half, t * width + column + c);
}

FOR_EACH_CPU
static void add_product(float *tile, const float *grad, const float *x, integer block, integer tokens) {
  for (integer r = 0; r < block; r += ROWS)
    for (integer c = 0; c < block; c += LANES) {
      line sums[ROWS];
      for (integer i = 0; i < ROWS; i++) sums[i] = *as_line(tile + (r + i) * block + c);
      for (integer t = 0; t < tokens; t++)
        for (integer i = 0; i < ROWS; i++) sums[i] += grad[t * block + r + i] * *as_line(x + t * block + c);
      for (integer i = 0; i < ROWS; i++) *as_line(tile + (r + i) * block + c) = sums[i];
    }
}

/* For tiles; `block` is a multiple of LANES, `out` (units, block, block). */
void tile_gradients(float *out, const void *grad, const void *x, integer tokens, const chosen *at) {
  const integer block = at->block, across = at->columns / block, width = at->half ? 2 : 4, parts = at->threads;
  #pragma omp parallel for num_threads(at->threads) schedule(static)
  for (integer part = 0; part < parts; part++) {
    const integer first = at->units * part / parts, end = at->units * (part + 1) / parts;
    float from_grad[SPAN * block], from_x[SPAN * block];
    if (first == end) continue;
    memset(out + first * block * block, 0, (end - first) * block * block * sizeof *out);
    for (integer start = 0; start < tokens; start += SPAN) {
      const integer some = tokens - start < SPAN ? tokens - start : SPAN;
      const char *some_grad = (const char *)grad + start * at->rows * width;
      const char *some_x = (const char *)x + start * at->columns * width;
      for (integer u = first; u < end; u++) {
        const integer down = at->index[u] / across, aside = at->index[u] % across;
        if (u == first || down != at->index[u - 1] / across)
          pack(from_grad, some_grad, at->half, at->rows, down * block, block, some);
        pack(from_x, some_x, at->half, at->columns, aside * block, block, some);
        add_product(out + u * block * block, from_grad, from_x, block, some);
      }
    }
  }
}

/* Lines that differ in one bit of their number, `apart`, exchange the numbers whose place differs in that bit. */
static inline void exchange(line *lines, int32_t apart) {
  const places place = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const places odd = (place & apart) != 0; /* all bits set, where true */
  for (int i = 0; i < LANES; i++) {
    if (i & apart) continue;
    const line low = lines[i], high = lines[i + apart];
    lines[i] = __builtin_shuffle(low, high, place + (odd & (LANES - apart)));
    lines[i + apart] = __builtin_shuffle(low, high, place + (odd & LANES) + (~odd & apart));
  }
}

/* A span of tokens of the columns from `first` to `end`, each column's side by side, zeros after the last token. */
FOR_EACH_CPU
static void turn(float *turned, const void *matrix, integer half, integer width, integer first, integer end,
                 integer tokens) {
  for (integer t = 0; t < SPAN; t += LANES)
    for (integer c = first; c < end; c += LANES) {
      const integer some = end - c < LANES ? end - c : LANES;
      line square[LANES] = {{0}};
      for (integer s = 0; s < LANES && t + s < tokens; s++)
        square[s] = loaded_some(matrix, half, (t + s) * width + c, some);
      exchange(square, 8);
      exchange(square, 4);
      exchange(square, 2);
      exchange(square, 1);
      for (integer i = 0; i < some; i++) *as_line(turned + (c + i) * SPAN + t) = square[i];
    }
}

FOR_EACH_CPU
static void add_dots(float *out, const float *grad, const float *x, const int32_t *index, integer units,
                     integer columns) {
  for (integer u = 0; u < units;) {
    const integer row = index[u] / columns, end = (row + 1) * columns;
    const float *of_row = grad + row * SPAN, *of_columns = x - row * columns * SPAN;
    for (; u + 4 <= units && index[u + 3] < end; u += 4) { /* four sums at once hide the latency of one */
      line sums[4] = {{0}};
      for (integer t = 0; t < SPAN; t += LANES)
        for (integer i = 0; i < 4; i++)
          sums[i] += *as_line(of_row + t) * *as_line(of_columns + (integer)index[u + i] * SPAN + t);
      for (integer i = 0; i < 4; i++) out[u + i] += total(&sums[i]);
    }
    for (; u < units && index[u] < end; u++) {
      line sums = {0};
      for (integer t = 0; t < SPAN; t += LANES)
        sums += *as_line(of_row + t) * *as_line(of_columns + (integer)index[u] * SPAN + t);
      out[u] += total(&sums);
    }
  }
}

/* For elements; `room` holds (rows + columns) x SPAN floats. */
void element_gradients(float *out, const void *grad, const void *x, float *room, integer tokens, const chosen *at) {
  const integer rows = at->rows, columns = at->columns, half = at->half, width = half ? 2 : 4, parts = at->threads;
  float *of_grad = room, *of_x = room + rows * SPAN;
  if (!at->units) return;
  memset(out, 0, at->units * sizeof *out);
  #pragma omp parallel num_threads(at->threads)
  for (integer start = 0; start < tokens; start += SPAN) {
    const char *some_grad = (const char *)grad + start * rows * width;
    const char *some_x = (const char *)x + start * columns * width;
    #pragma omp for schedule(static)
    for (integer part = 0; part < parts; part++) {
      turn(of_grad, some_grad, half, rows, rows * part / parts, rows * (part + 1) / parts, tokens - start);
      turn(of_x, some_x, half, columns, columns * part / parts, columns * (part + 1) / parts, tokens - start);
    }
    #pragma omp for schedule(static)
    for (integer part = 0; part < parts; part++) {
      const integer first = at->units * part / parts, end = at->units * (part + 1) / parts;
      add_dots(out + first, of_grad, of_x, at->index + first, end - first, columns);
    }
  }
}
