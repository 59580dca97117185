// Products with int8 weights.

#include "common.h"

using namespace mlt;

namespace {

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

}  // namespace

extern "C" {

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

// out [M, N] (+)= dequantised product of q [M, K] and packed weights, + bias. accumulate: add to what is there.
void mlt_gemm_int8(const int8_t* q, const float* a_scale, const int32_t* a_sum, int M, int K, const uint8_t* packed,
                   const float* w_scale, const float* bias, int N, float* out, int accumulate) {
  each_tile(M, N, kMaxTile, [&](int p, int first, int rows) {
    const int column = p * kPanel;
    kTiles[rows](q + static_cast<int64_t>(first) * K, K, a_scale + first, a_sum + first,
                 packed + static_cast<int64_t>(p) * K * kPanel, w_scale + column, bias ? bias + column : nullptr,
                 out + static_cast<int64_t>(first) * N + column, N, std::min(kPanel, N - column), accumulate != 0,
                 first == 0);
  });
}

}  // extern "C"
