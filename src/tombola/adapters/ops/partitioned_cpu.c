/* A partitioned LoRA's small products, one call a pass: of the output's gradient each group's rows of B meet only their
   own columns, and the minor group's few ranks are dot products and outer products along the columns, where lines of
   ranks would be all but empty. All is float32. */

#include "columns.h"

typedef struct {
  const float *x, *grad, *inner;           /* (tokens x in); backward alone: (tokens x out), (tokens x r) = x A^T */
  const float *a, *b, *minor_a, *minor_b;  /* (r x in), (dominant x r), (r_minor x in), (minor x r_minor) */
  const int64_t *rows, *minor_rows;
  integer tokens, in, out, dominant, minor, r, r_minor, lanes, threads;
  double scale, minor_scale;
} partitioned;

#define GROUP 4 /* sums at once, which hide the latency of one */

FOR_EACH_CPU
static float dot(const float *x, const float *y, integer numbers) {
  line sums[GROUP] = {{0}};
  integer i = 0;
  for (; i + GROUP * LANES <= numbers; i += GROUP * LANES)
    for (int k = 0; k < GROUP; k++) sums[k] += *as_line(x + i + k * LANES) * *as_line(y + i + k * LANES);
  const line all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  float sum = total(&all);
  for (; i < numbers; i++) sum += x[i] * y[i];
  return sum;
}

/* result (tokens x ranks, in rows of `stride`) = matrix (tokens x width) * transpose of lines (ranks x width). */
static void dots(float *result, integer stride, const float *matrix, const float *lines, integer ranks, integer width,
                 integer tokens) {
  #pragma omp for schedule(static) nowait
  for (integer t = 0; t < tokens; t++)
    for (integer k = 0; k < ranks; k++) result[t * stride + k] = dot(matrix + t * width, lines + k * width, width);
}

INLINE void add_lines_of(float *out, integer width, const float *thin, integer stride, const float *matrix,
                         integer tokens, int ranks) {
  line sums[2][GROUP];
  for (int i = 0; i < ranks; i++)
    for (int k = 0; k < GROUP; k++) sums[i][k] = *as_line(out + i * width + k * LANES);
  for (integer t = 0; t < tokens; t++, thin += stride, matrix += width)
    for (int k = 0; k < GROUP; k++)
      for (int i = 0; i < ranks; i++) sums[i][k] += thin[i] * *as_line(matrix + k * LANES);
  for (int i = 0; i < ranks; i++)
    for (int k = 0; k < GROUP; k++) *as_line(out + i * width + k * LANES) = sums[i][k];
}

/* For GROUP lines of columns, or the few that are left at the end of a row. */
FOR_EACH_CPU
static void add_products(float *out, integer width, const float *thin, integer stride, const float *matrix,
                         integer ranks, integer some, integer tokens) {
  integer k = 0;
  if (some == GROUP * LANES) {
    for (; k + 2 <= ranks; k += 2) add_lines_of(out + k * width, width, thin + k, stride, matrix, tokens, 2);
    if (k < ranks) add_lines_of(out + k * width, width, thin + k, stride, matrix, tokens, 1);
    return;
  }
  for (; k < ranks; k++)
    for (integer t = 0; t < tokens; t++)
      for (integer i = 0; i < some; i++) out[k * width + i] += thin[t * stride + k] * matrix[t * width + i];
}

/* lines (ranks x width) += transpose of thin (tokens x ranks, in rows of `stride`) * matrix (tokens x width). */
static void add_outers(float *lines, const float *thin, integer stride, const float *matrix, integer ranks,
                       integer width, integer tokens) {
  #pragma omp for schedule(static) nowait
  for (integer first = 0; first < width; first += GROUP * LANES) {
    const integer some = width - first < GROUP * LANES ? width - first : GROUP * LANES;
    add_products(lines + first, width, thin, stride, matrix + first, ranks, some, tokens);
  }
}

/* inner (tokens x r) = x times the dominant group's A; joined (tokens x R) = x times both groups'; outer (out x R) =
   both groups' B, scaled, each line at its row of the weight. R = r + r_minor. `room`, in floats: whole blocks of ROWS
   tokens and `in`, in lines; ROWS tokens of x; numbers of its columns. */
void partitioned_forward(float *inner, float *joined, float *outer, float *room, const partitioned *at) {
  const integer r = at->r, ranks = r + at->r_minor, lanes = at->lanes;
  float *wide = room, *factor = wide + (at->tokens + ROWS - 1) / ROWS * ROWS * lanes;
  float *block = factor + at->in * lanes;
  int32_t *columns = (int32_t *)(block + ROWS * at->in);
  for (integer i = 0; i < at->in; i++) columns[i] = (int32_t)i;
  #pragma omp parallel num_threads(at->threads)
  {
    pack(factor, at->a, at->in, 1, at->in, r, lanes, 1);
    #pragma omp barrier
    for (integer start = 0; start < at->tokens; start += SPAN) {
      const integer some = at->tokens - start < SPAN ? at->tokens - start : SPAN;
      const tall x = {at->x + start * at->in, columns, some, at->in, at->in, lanes};
      times(wide + start * lanes, factor, block, &x);
      dots(joined + start * ranks + r, ranks, x.numbers, at->minor_a, at->r_minor, at->in, some);
    }
    #pragma omp barrier
    #pragma omp for schedule(static) nowait
    for (integer t = 0; t < at->tokens; t++) {
      memcpy(inner + t * r, wide + t * lanes, r * sizeof *inner);
      memcpy(joined + t * ranks, wide + t * lanes, r * sizeof *joined);
    }
    #pragma omp for schedule(static) nowait
    for (integer i = 0; i < at->dominant; i++) {
      float *to = outer + at->rows[i] * ranks;
      for (integer k = 0; k < at->r; k++) to[k] = (float)at->scale * at->b[i * at->r + k];
      memset(to + at->r, 0, at->r_minor * sizeof *to);
    }
    #pragma omp for schedule(static) nowait
    for (integer i = 0; i < at->minor; i++) {
      float *to = outer + at->minor_rows[i] * ranks;
      memset(to, 0, at->r * sizeof *to);
      for (integer k = 0; k < at->r_minor; k++)
        to[at->r + k] = (float)at->minor_scale * at->minor_b[i * at->r_minor + k];
    }
  }
}

/* through (tokens x R) = grad * outer; whole_a (R x in) = both groups' A; and all factors' gradients. `room`, in
   floats: twice (dominant x lanes); (in x lanes); ROWS and SPAN tokens in lines, twice, and in r_minor; twice
   (out x r_minor); ROWS tokens of the gradient and of x; numbers of columns of x and of the dominant rows. */
void partitioned_backward(float *through, float *whole_a, float *for_a, float *for_b, float *for_minor_a,
                          float *for_minor_b, float *room, const partitioned *at) {
  const integer r = at->r, r_minor = at->r_minor, ranks = r + r_minor, lanes = at->lanes, of_b = at->dominant * lanes;
  float *factor = room, *sums = factor + of_b, *sums_a = sums + of_b, *wide = sums_a + at->in * lanes;
  float *packed = wide + (ROWS + SPAN) * lanes, *minor_inner = packed + (ROWS + SPAN) * lanes;
  float *minor_b = minor_inner + (ROWS + SPAN) * r_minor, *minor_sums = minor_b + at->out * r_minor;
  float *block = minor_sums + at->out * r_minor;
  int32_t *columns = (int32_t *)(block + ROWS * (at->in + at->out)), *rows = columns + at->in;
  for (integer i = 0; i < at->in; i++) columns[i] = (int32_t)i;
  memset(sums, 0, (of_b + at->in * lanes) * sizeof *sums);
  memset(minor_b, 0, 2 * at->out * r_minor * sizeof *minor_b);
  if (r_minor) memset(for_minor_a, 0, at->in * r_minor * sizeof *for_minor_a);
  for (integer i = 0; i < at->dominant; i++) rows[i] = (int32_t)at->rows[i];
  for (integer i = 0; i < at->minor; i++)
    for (integer k = 0; k < r_minor; k++)
      minor_b[k * at->out + at->minor_rows[i]] = (float)at->minor_scale * at->minor_b[i * r_minor + k];
  #pragma omp parallel num_threads(at->threads)
  {
    pack(factor, at->b, at->dominant, r, 1, r, lanes, (float)at->scale);
    #pragma omp for schedule(static) nowait
    for (integer k = 0; k < ranks; k++)
      memcpy(whole_a + k * at->in, k < r ? at->a + k * at->in : at->minor_a + (k - r) * at->in,
             at->in * sizeof *whole_a);
    #pragma omp barrier
    for (integer start = 0; start < at->tokens; start += SPAN) {
      const integer some = at->tokens - start < SPAN ? at->tokens - start : SPAN;
      const tall x = {at->x + start * at->in, columns, some, at->in, at->in, lanes};
      const tall grad = {at->grad + start * at->out, rows, some, at->out, at->dominant, lanes};
      float *own = through + start * ranks;
      const float *inner = at->inner + start * r;
      if (r != lanes) {
        pack(packed, inner, some, r, 1, r, lanes, 1);
        inner = packed;
      }
      times(wide, factor, block, &grad);
      dots(own + r, ranks, grad.numbers, minor_b, r_minor, at->out, some);
      dots(minor_inner, r_minor, x.numbers, at->minor_a, r_minor, at->in, some);
      #pragma omp barrier
      add_transposed(sums, inner, &grad);
      add_transposed(sums_a, wide, &x);
      add_outers(for_minor_a, own + r, ranks, x.numbers, r_minor, at->in, some);
      add_outers(minor_sums, minor_inner, r_minor, grad.numbers, r_minor, at->out, some);
      #pragma omp for schedule(static) nowait
      for (integer t = 0; t < some; t++) memcpy(own + t * ranks, wide + t * lanes, r * sizeof *own);
      #pragma omp barrier
    }
    #pragma omp for schedule(static) nowait
    for (integer k = 0; k < r; k++)
      for (integer j = 0; j < at->in; j++) for_a[k * at->in + j] = sums_a[j * lanes + k];
    #pragma omp for schedule(static) nowait
    for (integer i = 0; i < at->dominant; i++)
      for (integer k = 0; k < r; k++) for_b[i * r + k] = (float)at->scale * sums[i * lanes + k];
    #pragma omp for schedule(static) nowait
    for (integer i = 0; i < at->minor; i++)
      for (integer k = 0; k < r_minor; k++)
        for_minor_b[i * r_minor + k] = (float)at->minor_scale * minor_sums[k * at->out + at->minor_rows[i]];
  }
}
