/* Masked LoRA's small products: of the kept columns of x with A's, and of the output's gradient with B's; and its
   factors with their zeros. */

#include "columns.h"

typedef struct {
  const void *x, *grad;          /* (tokens x in), (tokens x out) */
  const float *a, *b;            /* (ranks x kept_columns), (kept_rows x ranks) */
  const int32_t *columns, *rows; /* what is kept of A and of B */
  integer tokens, in, out, kept_columns, kept_rows, ranks, lanes, half_x, half_grad, threads;
  double scale;
} masked;

FOR_EACH_CPU
static void widen(float *to, const uint16_t *from, integer numbers) {
  integer i = 0;
  for (; i + LANES <= numbers; i += LANES) *as_line(to + i) = loaded(from, 1, i);
  for (; i < numbers; i++) to[i] = from_half(from[i]);
}

/* Some numbers of a matrix, from `first` on, where they lie or, if they are bfloat16, widened into `room`. */
static const float *as_floats(float *room, const void *matrix, integer half, integer first, integer numbers,
                              integer threads) {
  if (!half) return (const float *)matrix + first;
  #pragma omp for schedule(static) nowait
  for (integer part = 0; part < threads; part++) {
    const integer start = numbers * part / threads, end = numbers * (part + 1) / threads;
    widen(room + start, (const uint16_t *)matrix + first + start, end - start);
  }
  return room;
}

static void spread_b(float *whole, const masked *at) {
  const integer line = at->ranks * sizeof *whole;
  #pragma omp for schedule(static) nowait
  for (integer j = 0; j <= at->kept_rows; j++) { /* the rows between the kept one before and this */
    const integer first = j ? at->rows[j - 1] + 1 : 0, end = j < at->kept_rows ? at->rows[j] : at->out;
    memset(whole + first * at->ranks, 0, (end - first) * line);
    if (j < at->kept_rows) memcpy(whole + end * at->ranks, at->b + j * at->ranks, line);
  }
}

static void spread_a(float *whole, const masked *at) {
  #pragma omp for schedule(static) nowait
  for (integer i = 0; i < at->ranks; i++) {
    memset(whole + i * at->in, 0, at->in * sizeof *whole);
    for (integer j = 0; j < at->kept_columns; j++)
      whole[i * at->in + at->columns[j]] = at->a[i * at->kept_columns + j];
  }
}

/* `room` is for SPAN tokens, where they are widened. */
static tall kept_of_x(float *room, integer start, integer tokens, const masked *at) {
  const float *x = as_floats(room, at->x, at->half_x, start * at->in, tokens * at->in, at->threads);
  return (tall){x, at->columns, tokens, at->in, at->kept_columns, at->lanes};
}

static tall kept_of_grad(float *room, integer start, integer tokens, const masked *at) {
  const float *grad = as_floats(room, at->grad, at->half_grad, start * at->out, tokens * at->out, at->threads);
  return (tall){grad, at->rows, tokens, at->out, at->kept_rows, at->lanes};
}

static void wait_if(integer needed) {
  if (needed) {
    #pragma omp barrier
  }
}

/* inner (tokens x lanes) = x A^T, and B with its zeros. `inner` has room for whole blocks of ROWS tokens; `room` for A,
   packed, ROWS tokens of x and, where it is widened, SPAN. */
void masked_forward(float *inner, float *whole_b, float *room, const masked *at) {
  float *block = room + at->kept_columns * at->lanes, *wide = block + ROWS * at->in;
  #pragma omp parallel num_threads(at->threads)
  {
    spread_b(whole_b, at);
    pack(room, at->a, at->kept_columns, 1, at->kept_columns, at->ranks, at->lanes, 1);
    #pragma omp barrier
    for (integer start = 0; start < at->tokens; start += SPAN) {
      const tall x = kept_of_x(wide, start, at->tokens - start < SPAN ? at->tokens - start : SPAN, at);
      wait_if(at->half_x);
      times(inner + start * at->lanes, room, block, &x);
      wait_if(at->half_x);
    }
  }
}

/* through_b (tokens x lanes) = scale * grad B, the gradients of A and B, and A with its zeros. `through_b` as `inner`
   above; `room` for both factors in lines, twice, for ROWS and SPAN tokens in lines and, of x and of the
   gradient, for ROWS and, where it is widened, SPAN. */
void masked_backward(float *through_b, float *whole_a, float *for_a, float *for_b, float *room, const masked *at) {
  const integer of_a = at->kept_columns * at->lanes, of_b = at->kept_rows * at->lanes;
  float *factor_a = room, *factor_b = factor_a + of_a, *sums_a = factor_b + of_b, *sums_b = sums_a + of_a;
  float *inner = sums_b + of_b, *block = inner + (ROWS + SPAN) * at->lanes;
  float *wide_x = block + ROWS * (at->in + at->out), *wide_grad = wide_x + SPAN * at->in;
  memset(sums_a, 0, (of_a + of_b) * sizeof *room);
  #pragma omp parallel num_threads(at->threads)
  {
    pack(factor_b, at->b, at->kept_rows, at->ranks, 1, at->ranks, at->lanes, (float)at->scale);
    pack(factor_a, at->a, at->kept_columns, 1, at->kept_columns, at->ranks, at->lanes, 1);
    spread_a(whole_a, at);
    #pragma omp barrier
    for (integer start = 0; start < at->tokens; start += SPAN) {
      const integer some = at->tokens - start < SPAN ? at->tokens - start : SPAN;
      const tall x = kept_of_x(wide_x, start, some, at), grad = kept_of_grad(wide_grad, start, some, at);
      wait_if(at->half_x || at->half_grad);
      times(through_b + start * at->lanes, factor_b, block, &grad);
      times(inner, factor_a, block + ROWS * at->out, &x);
      #pragma omp barrier
      add_transposed(sums_a, through_b + start * at->lanes, &x);
      add_transposed(sums_b, inner, &grad);
      #pragma omp barrier
    }
    #pragma omp for schedule(static) nowait
    for (integer k = 0; k < at->ranks; k++)
      for (integer j = 0; j < at->kept_columns; j++) for_a[k * at->kept_columns + j] = sums_a[j * at->lanes + k];
    #pragma omp for schedule(static) nowait
    for (integer i = 0; i < at->kept_rows; i++)
      for (integer k = 0; k < at->ranks; k++)
        for_b[i * at->ranks + k] = (float)at->scale * sums_b[i * at->lanes + k];
  }
}
