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

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "worker_pool.h"

namespace {

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

inline uint16_t to_bf16(float value) {  // round to nearest even
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

// One register tile: R rows x 32 columns over all of K. a: R rows of int8 with stride K.
template <int R>
void gemm_tile(const int8_t* a, int K, const float* a_scale, const int32_t* a_sum, const uint8_t* w,
               const float* w_scale, const float* bias, float* out, int64_t ldo, int columns, bool accumulate,
               bool prefetch) {
  __m512i acc[R][2];
#pragma GCC unroll 14
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm512_setzero_si512();
  const int steps = K / 4;
  for (int k = 0; k < steps; ++k) {
    const uint8_t* line = w + static_cast<int64_t>(k) * 128;
    if (prefetch) {
      _mm_prefetch(reinterpret_cast<const char*>(line + 4096), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(line + 4160), _MM_HINT_T0);
    }
    const __m512i w0 = _mm512_loadu_si512(line);
    const __m512i w1 = _mm512_loadu_si512(line + 64);
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
      int32_t four;
      std::memcpy(&four, a + static_cast<int64_t>(r) * K + k * 4, 4);
      const __m512i b = _mm512_set1_epi32(four);
      acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], w0, b);
      acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], w1, b);
    }
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const int left = columns - half * 16;
    if (left <= 0) break;
    const __mmask16 mask = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
    const __m512 scale = _mm512_maskz_loadu_ps(mask, w_scale + half * 16);
    const __m512 offset = bias ? _mm512_maskz_loadu_ps(mask, bias + half * 16) : _mm512_setzero_ps();
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
      // weights are stored with 128 added: take 128 * sum(a) back
      const __m512i exact = _mm512_sub_epi32(acc[r][half], _mm512_set1_epi32(128 * a_sum[r]));
      const __m512 value =
          _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(a_scale[r])), scale, offset);
      float* to = out + r * ldo + half * 16;
      const __m512 before = accumulate ? _mm512_maskz_loadu_ps(mask, to) : _mm512_setzero_ps();
      _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(before, value));
    }
  }
}

using TileFn = void (*)(const int8_t*, int, const float*, const int32_t*, const uint8_t*, const float*, const float*,
                        float*, int64_t, int, bool, bool);
constexpr TileFn kTiles[kMaxTile + 1] = {nullptr,       gemm_tile<1>,  gemm_tile<2>,  gemm_tile<3>,  gemm_tile<4>,
                                         gemm_tile<5>,  gemm_tile<6>,  gemm_tile<7>,  gemm_tile<8>,  gemm_tile<9>,
                                         gemm_tile<10>, gemm_tile<11>, gemm_tile<12>, gemm_tile<13>, gemm_tile<14>};

// Attention of one query token's G heads that share a key/value head, over `length` cached tokens.
// q: [G, D] with stride D. K block: [D, 16]; V block: [16, D]. scores: scratch [G, padded length].
template <int G>
void attend_one(const float* q, int D, float scale, const uint16_t* k_cache, const uint16_t* v_cache,
                int64_t block_stride, const int32_t* table, int length, float* scores, float* out) {
  const int blocks = (length + kBlockSize - 1) / kBlockSize;
  const int padded = blocks * kBlockSize;
  __m512 peak[G], total[G];
  for (int g = 0; g < G; ++g) peak[g] = _mm512_set1_ps(-INFINITY);
  for (int b = 0; b < blocks; ++b) {
    const uint16_t* keys = k_cache + table[b] * block_stride;
    __m512 dot[G];
    for (int g = 0; g < G; ++g) dot[g] = _mm512_setzero_ps();
    for (int d = 0; d < D; ++d) {
      const __m512 key = load_bf16(keys + d * kBlockSize);
      for (int g = 0; g < G; ++g) dot[g] = _mm512_fmadd_ps(key, _mm512_set1_ps(q[g * D + d]), dot[g]);
    }
    const int left = length - b * kBlockSize;
    const __mmask16 mask = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
    for (int g = 0; g < G; ++g) {
      const __m512 value = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), mask, dot[g], _mm512_set1_ps(scale));
      peak[g] = _mm512_max_ps(peak[g], value);
      _mm512_storeu_ps(scores + g * padded + b * kBlockSize, value);
    }
  }
  float norm[G];
  for (int g = 0; g < G; ++g) {
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(peak[g]));
    total[g] = _mm512_setzero_ps();
    for (int i = 0; i < padded; i += 16) {
      const __m512 p = exp_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + g * padded + i), top));
      total[g] = _mm512_add_ps(total[g], p);
      _mm512_storeu_ps(scores + g * padded + i, p);
    }
    norm[g] = 1.0f / reduce_add(total[g]);
  }
  for (int d = 0; d < D; d += 32) {
    __m512 sum[G][2];
    for (int g = 0; g < G; ++g) sum[g][0] = sum[g][1] = _mm512_setzero_ps();
    for (int i = 0; i < length; ++i) {
      const uint16_t* value = v_cache + table[i / kBlockSize] * block_stride + (i % kBlockSize) * D + d;
      const __m512 v0 = load_bf16(value), v1 = load_bf16(value + 16);
      for (int g = 0; g < G; ++g) {
        const __m512 p = _mm512_set1_ps(scores[g * padded + i]);
        sum[g][0] = _mm512_fmadd_ps(p, v0, sum[g][0]);
        sum[g][1] = _mm512_fmadd_ps(p, v1, sum[g][1]);
      }
    }
    for (int g = 0; g < G; ++g) {
      const __m512 n = _mm512_set1_ps(norm[g]);
      _mm512_storeu_ps(out + g * D + d, _mm512_mul_ps(sum[g][0], n));
      _mm512_storeu_ps(out + g * D + d + 16, _mm512_mul_ps(sum[g][1], n));
    }
  }
}

using AttendFn = void (*)(const float*, int, float, const uint16_t*, const uint16_t*, int64_t, const int32_t*, int,
                          float*, float*);
constexpr AttendFn kAttend[9] = {nullptr,       attend_one<1>, attend_one<2>, attend_one<3>, attend_one<4>,
                                 attend_one<5>, attend_one<6>, attend_one<7>, attend_one<8>};

// Call body(item) for each item of [0, total), on all threads.
template <class Body>
void parallel(int total, const Body& body) {
  WorkerPool& pool = WorkerPool::get();
  pool.run(total, pool.grain(total), [&](int begin, int end) {
    for (int item = begin; item < end; ++item) body(item);
  });
}

// Memory of the calling thread for one item of a loop; the next call may hand out the same.
float* scratch(size_t size) {
  static thread_local std::vector<float> memory;
  if (memory.size() < size) memory.resize(size);
  return memory.data();
}

struct Candidate {
  float x;  // (logit - max) / temperature
  int32_t id;
};

}  // namespace

extern "C" {

void mlt_set_threads(int threads) { WorkerPool::get().set_threads(threads); }

// weights [N, K] float32 -> packed panels [ceil(N/32), K/4, 2, 16, 4] of code + 128, scales [N]. K % 16 == 0.
void mlt_pack_int8(const float* w, int N, int K, uint8_t* packed, float* scales) {
  const int panels = (N + kPanel - 1) / kPanel;
  parallel(panels, [&](int p) {
    std::vector<int8_t> codes(K);
    uint8_t* panel = packed + static_cast<int64_t>(p) * K * kPanel;
    for (int c = 0; c < kPanel; ++c) {
      const int n = p * kPanel + c;
      if (n < N) {
        quantize_row(w + static_cast<int64_t>(n) * K, K, codes.data(), scales + n);
      } else {
        std::fill(codes.begin(), codes.end(), 0);
      }
      for (int k = 0; k < K; ++k) panel[static_cast<int64_t>(k / 4) * 128 + c * 4 + k % 4] = codes[k] + 128;
    }
  });
}

// x [M, K] -> q [M, K] int8, scale [M], sum [M].
void mlt_quantize(const float* x, int M, int K, int8_t* q, float* scale, int32_t* sum) {
  parallel(M, [&](int m) {
    sum[m] = quantize_row(x + static_cast<int64_t>(m) * K, K, q + static_cast<int64_t>(m) * K, scale + m);
  });
}

// RMSNorm (Zhang & Sennrich 2019) of x [M, K], then quantised like mlt_quantize.
void mlt_rmsnorm_quantize(const float* x, const float* weight, float eps, int M, int K, int8_t* q, float* scale,
                          int32_t* sum) {
  parallel(M, [&](int m) {
    float* row = scratch(K);
    const float* in = x + static_cast<int64_t>(m) * K;
    __m512 squares = _mm512_setzero_ps();
    for (int k = 0; k < K; k += 16) {
      const __m512 v = _mm512_loadu_ps(in + k);
      squares = _mm512_fmadd_ps(v, v, squares);
    }
    const __m512 inverse = _mm512_set1_ps(1.0f / std::sqrt(reduce_add(squares) / K + eps));
    for (int k = 0; k < K; k += 16)
      _mm512_storeu_ps(row + k,
                       _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(in + k), inverse), _mm512_loadu_ps(weight + k)));
    sum[m] = quantize_row(row, K, q + static_cast<int64_t>(m) * K, scale + m);
  });
}

// SwiGLU: gate_up [M, 2 I] -> silu(gate) * up, quantised: q [M, I].
void mlt_swiglu_quantize(const float* gate_up, int M, int I, int8_t* q, float* scale, int32_t* sum) {
  parallel(M, [&](int m) {
    float* row = scratch(I);
    const float* gate = gate_up + static_cast<int64_t>(m) * 2 * I;
    const float* up = gate + I;
    const __m512 one = _mm512_set1_ps(1.0f), zero = _mm512_setzero_ps();
    for (int i = 0; i < I; i += 16) {
      const __m512 g = _mm512_loadu_ps(gate + i);
      const __m512 small = exp_ps(_mm512_sub_ps(zero, _mm512_abs_ps(g)));  // exp(-|g|), never overflows
      const __mmask16 positive = _mm512_cmp_ps_mask(g, zero, _CMP_GE_OQ);
      const __m512 numerator = _mm512_mask_blend_ps(positive, small, one);
      const __m512 sigmoid = _mm512_div_ps(numerator, _mm512_add_ps(one, small));
      _mm512_storeu_ps(row + i, _mm512_mul_ps(_mm512_mul_ps(g, sigmoid), _mm512_loadu_ps(up + i)));
    }
    sum[m] = quantize_row(row, I, q + static_cast<int64_t>(m) * I, scale + m);
  });
}

// out [M, N] (+)= dequantised product of q [M, K] and packed weights, + bias. accumulate: add to what is there.
void mlt_gemm_int8(const int8_t* q, const float* a_scale, const int32_t* a_sum, int M, int K, const uint8_t* packed,
                   const float* w_scale, const float* bias, int N, float* out, int accumulate) {
  const int panels = (N + kPanel - 1) / kPanel;
  const int tiles = (M + kMaxTile - 1) / kMaxTile;
  parallel(panels, [&](int p) {
    const uint8_t* w = packed + static_cast<int64_t>(p) * K * kPanel;
    const int column = p * kPanel;
    for (int t = 0; t < tiles; ++t) {  // rows spread evenly over the tiles
      const int first = static_cast<int>(static_cast<int64_t>(M) * t / tiles);
      const int rows = static_cast<int>(static_cast<int64_t>(M) * (t + 1) / tiles) - first;
      kTiles[rows](q + static_cast<int64_t>(first) * K, K, a_scale + first, a_sum + first, w, w_scale + column,
                   bias ? bias + column : nullptr, out + static_cast<int64_t>(first) * N + column, N,
                   std::min(kPanel, N - column), accumulate != 0, t == 0);
    }
  });
}

// Rotary embedding (half-split pairs) of the query and key parts of qkv [M, (H + 2 KV) D], in place for the
// queries; keys and values go into the cache at slot = block * 16 + offset. cos, sin: [positions, D / 2].
void mlt_rope_store(float* qkv, int M, int H, int KV, int D, const int32_t* positions, const int64_t* slots,
                    const float* cosines, const float* sines, uint16_t* k_cache, uint16_t* v_cache) {
  const int half = D / 2;
  const int64_t width = static_cast<int64_t>(H + 2 * KV) * D;
  const int64_t head_size = static_cast<int64_t>(kBlockSize) * D;
  parallel(M, [&](int m) {
    float* row = qkv + m * width;
    const float* c = cosines + static_cast<int64_t>(positions[m]) * half;
    const float* s = sines + static_cast<int64_t>(positions[m]) * half;
    for (int h = 0; h < H + KV; ++h) {
      float* head = row + static_cast<int64_t>(h) * D;
      for (int i = 0; i < half; ++i) {
        const float first = head[i], second = head[i + half];
        head[i] = first * c[i] - second * s[i];
        head[i + half] = second * c[i] + first * s[i];
      }
    }
    const int64_t block = slots[m] / kBlockSize, offset = slots[m] % kBlockSize;
    for (int h = 0; h < KV; ++h) {
      uint16_t* keys = k_cache + (block * KV + h) * head_size;
      uint16_t* values = v_cache + (block * KV + h) * head_size + offset * D;
      const float* key = row + static_cast<int64_t>(H + h) * D;
      const float* value = row + static_cast<int64_t>(H + KV + h) * D;
      for (int d = 0; d < D; ++d) keys[d * kBlockSize + offset] = to_bf16(key[d]);
      for (int d = 0; d < D; ++d) values[d] = to_bf16(value[d]);
    }
  });
}

// Attention over the paged cache. Row m belongs to sequence row_seq[m] and sees lengths[m] cached tokens.
// qkv as above (queries rotated), tables [S, max_blocks], out [M, H D]. Scratch is allocated per thread.
void mlt_paged_attention(const float* qkv, int M, int H, int KV, int D, const uint16_t* k_cache,
                         const uint16_t* v_cache, const int32_t* tables, int max_blocks, const int32_t* row_seq,
                         const int32_t* lengths, float scale, float* out) {
  const int G = H / KV;
  const int64_t head_size = static_cast<int64_t>(kBlockSize) * D;
  const int64_t width = static_cast<int64_t>(H + 2 * KV) * D;
  parallel(M * KV, [&](int task) {
    float* scores = scratch(static_cast<size_t>(G) * max_blocks * kBlockSize);
    const int m = task / KV, h = task % KV;
    kAttend[G](qkv + m * width + static_cast<int64_t>(h) * G * D, D, scale, k_cache + h * head_size,
               v_cache + h * head_size, head_size * KV, tables + static_cast<int64_t>(row_seq[m]) * max_blocks,
               lengths[m], scores, out + static_cast<int64_t>(m) * H * D + static_cast<int64_t>(h) * G * D);
  });
}

// Draw one token a row. logits [M, V] (V % 16 == 0); per row: temperature (0 = greedy), top_p, top_k (0 = off),
// min_p, uniform in [0, 1). Tokens are ranked by probability (ties: lower id first); the draw inverts the
// cumulative distribution in that order. Out: token, log-probability and entropy at temperature 1 (nats).
// A row with a NaN, or whose largest logit is infinite, has no distribution: token -1, NaN and NaN.
void mlt_sample(const float* logits, int M, int V, const float* temperature, const float* top_p, const int32_t* top_k,
                const float* min_p, const double* uniform, int32_t* token, float* logprob, float* entropy) {
  parallel(M, [&](int m) {
    const float* row = logits + static_cast<int64_t>(m) * V;
    __m512 peak = _mm512_set1_ps(-INFINITY);
    __mmask16 broken = 0;
    for (int v = 0; v < V; v += 16) {
      const __m512 x = _mm512_loadu_ps(row + v);
      broken |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
      peak = _mm512_max_ps(peak, x);
    }
    const float top = _mm512_reduce_max_ps(peak);
    if (broken || !std::isfinite(top)) {  // no distribution: -1 tells the caller
      token[m] = -1;
      logprob[m] = entropy[m] = NAN;
      return;
    }
    const bool greedy = temperature[m] <= 0;
    const float inverse = greedy ? 1.0f : 1.0f / temperature[m];
    const __m512 vtop = _mm512_set1_ps(top), vinverse = _mm512_set1_ps(inverse);
    double mass = 0, weighted = 0, tempered = 0;
    for (int start = 0; start < V; start += 4096) {  // float sums over short stretches, doubles across them
      const int end = std::min(V, start + 4096);
      __m512 s = _mm512_setzero_ps(), e = s, t = s;
      for (int v = start; v < end; v += 16) {
        const __m512 x = _mm512_sub_ps(_mm512_loadu_ps(row + v), vtop);
        const __m512 p = exp_ps(x);
        s = _mm512_add_ps(s, p);
        e = _mm512_fmadd_ps(p, _mm512_max_ps(x, _mm512_set1_ps(-1e4f)), e);
        t = _mm512_add_ps(t, exp_ps(_mm512_mul_ps(x, vinverse)));
      }
      mass += reduce_add(s);
      weighted += reduce_add(e);
      tempered += reduce_add(t);
    }
    entropy[m] = static_cast<float>(std::max(0.0, std::log(mass) - weighted / mass));
    int32_t chosen = -1;
    if (greedy) {
      for (int v = 0; v < V && chosen < 0; ++v)
        if (row[v] == top) chosen = v;
    }
    bool complete = false;
    for (float floor = -12.0f; chosen < 0 && !complete; floor = -INFINITY) {  // the likely few first, then all
      std::vector<Candidate> kept;
      kept.reserve(256);
      const float bound = floor == -INFINITY ? -INFINITY : top + floor / inverse;
      const __m512 vbound = _mm512_set1_ps(bound);
      for (int v = 0; v < V; v += 16) {
        __mmask16 mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(row + v), vbound, _CMP_GT_OQ);
        for (; mask; mask &= mask - 1) {
          const int id = v + __builtin_ctz(mask);
          kept.push_back({(row[id] - top) * inverse, id});
        }
      }
      std::sort(kept.begin(), kept.end(), [row](const Candidate& a, const Candidate& b) {
        return row[a.id] > row[b.id] || (row[a.id] == row[b.id] && a.id < b.id);
      });
      complete = floor == -INFINITY;
      const size_t limit = top_k[m] > 0 ? static_cast<size_t>(top_k[m]) : static_cast<size_t>(V);
      // how many are in the nucleus, and their mass; enough = no token below the floor can belong to it
      size_t count = 0;
      double kept_mass = 0;
      bool enough = complete;
      for (; count < kept.size(); ++count) {
        const double p = std::exp(static_cast<double>(kept[count].x));
        if (count >= limit || (count > 0 && p < min_p[m]) ||
            (count > 0 && top_p[m] < 1 && kept_mass >= top_p[m] * tempered)) {
          enough = true;
          break;
        }
        kept_mass += p;
      }
      enough = enough || count >= limit || (top_p[m] < 1 && kept_mass >= top_p[m] * tempered) ||
               (min_p[m] > 0 && std::exp(static_cast<double>(floor)) <= min_p[m]);
      const bool unfiltered = !enough && top_p[m] >= 1 && min_p[m] <= 0 && limit >= static_cast<size_t>(V);
      if (!enough && !unfiltered) continue;
      double target = uniform[m] * (unfiltered ? tempered : kept_mass);
      if (unfiltered && target >= kept_mass) continue;  // the draw fell into the tail below the floor
      for (size_t i = 0; i < count; ++i) {
        target -= std::exp(static_cast<double>(kept[i].x));
        chosen = kept[i].id;
        if (target < 0) break;
      }
    }
    token[m] = chosen;
    logprob[m] = static_cast<float>((row[chosen] - top) - std::log(mass));
  });
}

}  // extern "C"
