/* Numbers four at a time, exp and log, random numbers, and the product of two matrices. */
typedef float v4 __attribute__((ext_vector_type(4), aligned(4)));
typedef unsigned long long u64;

static u64 chance[4]; /* a stream of random numbers for each use */
enum { ORDER, HEAD, MASKS, LABELS };

static void clear(void *to, unsigned bytes) { __builtin_memset(to, 0, bytes); }
static v4 at4(const float *x) { return *(const v4 *)x; }
static float sum4(v4 x) { return (x[0] + x[1]) + (x[2] + x[3]); }

static float exponential(float x) { /* of x ≤ 0: 2^n e^r, |r| ≤ ln 2 / 2, e^r by its series */
  if (!(x > -87)) return x != x ? x : 0;
  int n = (int)(x * 1.44269504f - 0.5f);
  float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float e = 1 + r * (1 + r / 2 * (1 + r / 3 * (1 + r / 4 * (1 + r / 5 * (1 + r / 6 * (1 + r / 7))))));
  union { int bits; float value; } two = {(n + 127) << 23};
  return e * two.value;
}

static double logarithm(double x) { /* of x ≥ 1: n ln 2 + 2 (s + s³/3 + s⁵/5 + …), s = (m − 1) / (m + 1) */
  if (!(x < 1e300)) return x;
  int n = 0;
  for (; x > 1.4; n++) x /= 2;
  double s = (x - 1) / (x + 1), power = s, sum = 0;
  for (int i = 1; i < 30; i += 2, power *= s * s) sum += power / i;
  return n * 0.6931471805599453 + 2 * sum;
}

static u64 draw(int use) { /* splitmix64 (Steele, Lea & Flood 2014) */
  u64 z = chance[use] += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
static double uniform(int use) { return (draw(use) >> 11) * 0x1p-53; }
static int below(int use, int n) { return (int)(((draw(use) >> 32) * n) >> 32); }
static double normal(int use) { /* nearly: the sum of twelve uniform numbers has variance 1 */
  double sum = -6;
  for (int i = 0; i < 12; i++) sum += uniform(use);
  return sum;
}

/* C += A B, with A[i][k] = a[i·down + k·right], B (inner × cols), C (rows × cols): 4 × 8 numbers at a time */
static void product(float *c, const float *a, const float *b, int rows, int inner, int cols, int down, int right) {
  int wide = cols / 8 * 8, i = 0;
  for (int j = 0; j < wide; j += 8) {
    for (i = 0; i + 4 <= rows; i += 4) {
      v4 s[4][2];
      for (int r = 0; r < 4; r++) s[r][0] = at4(c + (i + r) * cols + j), s[r][1] = at4(c + (i + r) * cols + j + 4);
      for (int k = 0; k < inner; k++) {
        v4 b0 = at4(b + k * cols + j), b1 = at4(b + k * cols + j + 4);
        const float *own = a + i * down + k * right;
        for (int r = 0; r < 4; r++) s[r][0] += own[r * down] * b0, s[r][1] += own[r * down] * b1;
      }
      for (int r = 0; r < 4; r++) *(v4 *)(c + (i + r) * cols + j) = s[r][0], *(v4 *)(c + (i + r) * cols + j + 4) = s[r][1];
    }
    for (; i < rows; i++) {
      v4 s0 = at4(c + i * cols + j), s1 = at4(c + i * cols + j + 4);
      for (int k = 0; k < inner; k++) {
        float own = a[i * down + k * right];
        s0 += own * at4(b + k * cols + j), s1 += own * at4(b + k * cols + j + 4);
      }
      *(v4 *)(c + i * cols + j) = s0, *(v4 *)(c + i * cols + j + 4) = s1;
    }
  }
  for (i = 0; i < rows; i++)
    for (int j = wide; j < cols; j++)
      for (int k = 0; k < inner; k++) c[i * cols + j] += a[i * down + k * right] * b[k * cols + j];
}

