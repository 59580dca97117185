// What the kernels share: constants, vector functions, quantisation of one row, loops over threads.
//
// CPU kernels of RyanStream for x86-64 with AVX-512 and VNNI. Plain C interface, called by kernels.py;
// each has a twin in torch (ops_torch.py, sampling.py) and a parity test.
//
// Words: M = rows (tokens of this step), K = input features, N = output features, D = head size,
// G = query heads per key/value head. A panel is 32 output columns of a weight matrix.
//
// Every row is computed in the same order whatever else is in the batch, so a request's result does
// not depend on its neighbours: int8 products are exact in int32, and all reductions run within a row.
//
// Threads are worker_pool.h's own, not OpenMP's.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "worker_pool.h"

namespace mlt {

constexpr int kPanel = 32;               // columns of a weight panel
constexpr int kMaxTile = 14;             // rows of a register tile: 14 x 2 accumulators + 2 weights + 1 broadcast
constexpr int kBlockSize = 16;           // tokens of a KV block
constexpr int kNotFinite = 0x99;         // fpclass: quiet NaN, signalling NaN, plus and minus infinity
constexpr float kSmallestPeak = 1e-30f;  // a row that stays below is taken as zero: 127 / peak must be finite

inline float reduce_add(__m512 v) { return _mm512_reduce_add_ps(v); }

// exp(x) for x <= 0 to about 1 ulp of float; inputs below -87 give 0, NaN stays NaN.
inline __m512 exp_ps(__m512 x) {
  const __m512 low = _mm512_set1_ps(-87.0f);
  const __mmask16 keep = _mm512_cmp_ps_mask(x, low, _CMP_NLE_UQ);
  x = _mm512_max_ps(low, x);  // of a pair with a NaN the second is taken
  const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
  const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_maskz_scalef_ps(keep, p, n);
}

inline __m512 load_bf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline float from_bf16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint16_t to_bf16(float value) {  // round to nearest even
  if (value != value) return 0x7fc0;    // NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits += 0x7fff + ((bits >> 16) & 1);
  return static_cast<uint16_t>(bits >> 16);
}

// Quantise one row of K floats (K a multiple of 16) to int8 with one scale; returns the sum of the codes.
// A row with a NaN or an infinity gets codes 0 and scale NaN, so that its products are NaN and not garbage.
inline int32_t quantize_row(const float* x, int K, int8_t* q, float* scale) {
  __m512 peak = _mm512_setzero_ps();
  __mmask16 broken = 0;
  for (int k = 0; k < K; k += 16) {
    const __m512 v = _mm512_loadu_ps(x + k);
    broken |= _mm512_fpclass_ps_mask(v, kNotFinite);
    peak = _mm512_max_ps(peak, _mm512_abs_ps(v));
  }
  if (broken) {
    std::memset(q, 0, K);
    *scale = NAN;
    return 0;
  }
  const float top = _mm512_reduce_max_ps(peak);
  *scale = top > kSmallestPeak ? top / 127.0f : 1.0f;
  const __m512 inverse = _mm512_set1_ps(top > kSmallestPeak ? 127.0f / top : 0.0f);
  __m512i total = _mm512_setzero_si512();
  for (int k = 0; k < K; k += 16) {
    const __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + k), inverse));
    total = _mm512_add_epi32(total, codes);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + k), _mm512_cvtsepi32_epi8(codes));
  }
  return _mm512_reduce_add_epi32(total);
}

// The same for each `group` of a row on its own: scale, sum [K / group].
inline void quantize_groups(const float* x, int K, int group, int8_t* q, float* scale, int32_t* sum) {
  for (int g = 0; g < K / group; ++g) sum[g] = quantize_row(x + g * group, group, q + g * group, scale + g);
}

// Call body(item) for each item of [0, total), on all threads.
template <class Body>
void parallel(int total, const Body& body) {
  WorkerPool& pool = WorkerPool::get();
  pool.run(total, pool.grain(total), [&](int begin, int end) {
    for (int item = begin; item < end; ++item) body(item);
  });
}

// Share out a product: call tile(panel, first row, number of rows) for every panel of N columns and every tile of at
// most `max_rows` of M rows. Rows are spread evenly over the tiles; a panel's tiles follow one another on one thread.
template <class Tile>
void each_tile(int M, int N, int max_rows, const Tile& tile) {
  const int tiles = (M + max_rows - 1) / max_rows;
  parallel((N + kPanel - 1) / kPanel, [&](int panel) {
    for (int t = 0; t < tiles; ++t) {
      const int first = static_cast<int>(static_cast<int64_t>(M) * t / tiles);
      const int rows = static_cast<int>(static_cast<int64_t>(M) * (t + 1) / tiles) - first;
      tile(panel, first, rows);
    }
  });
}

// Memory of the calling thread for one item of a loop; the next call may hand out the same.
inline float* scratch(size_t size) {
  static thread_local std::vector<float> memory;
  if (memory.size() < size) memory.resize(size);
  return memory.data();
}

}  // namespace mlt
