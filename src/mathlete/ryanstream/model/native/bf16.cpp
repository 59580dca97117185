// Products with bf16 weights, summed in float32. For processors with AVX-512 BF16; elsewhere torch does them.

#include "common.h"

using namespace mlt;

#ifdef __AVX512BF16__

namespace {

// One register tile: R rows x 32 columns over all of K. a: R rows of bf16 with stride K.
template <int R>
void tile(const uint16_t* a, int K, const uint16_t* w, const float* bias, float* out, int64_t ldo, int columns,
          bool accumulate, bool prefetch) {
  __m512 acc[R][2];
#pragma GCC unroll 14
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
  for (int k = 0; k < K / 2; ++k) {
    const uint16_t* line = w + static_cast<int64_t>(k) * 64;
    if (prefetch) {
      _mm_prefetch(reinterpret_cast<const char*>(line + 2048), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(line + 2080), _MM_HINT_T0);
    }
    const __m512bh w0 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(line));
    const __m512bh w1 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(line + 32));
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
      int32_t two;
      std::memcpy(&two, a + static_cast<int64_t>(r) * K + k * 2, 4);
      const __m512bh b = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two));
      acc[r][0] = _mm512_dpbf16_ps(acc[r][0], w0, b);
      acc[r][1] = _mm512_dpbf16_ps(acc[r][1], w1, b);
    }
  }
  for (int half = 0; half < 2; ++half) {
    const int left = columns - half * 16;
    if (left <= 0) break;
    const __mmask16 mask = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
    const __m512 added = bias ? _mm512_maskz_loadu_ps(mask, bias + half * 16) : _mm512_setzero_ps();
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
      float* to = out + r * ldo + half * 16;
      const __m512 before = accumulate ? _mm512_maskz_loadu_ps(mask, to) : _mm512_setzero_ps();
      _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(before, _mm512_add_ps(acc[r][half], added)));
    }
  }
}

using TileFn = void (*)(const uint16_t*, int, const uint16_t*, const float*, float*, int64_t, int, bool, bool);
constexpr TileFn kTiles[kMaxTile + 1] = {nullptr, tile<1>, tile<2>,  tile<3>,  tile<4>,  tile<5>,  tile<6>, tile<7>,
                                         tile<8>, tile<9>, tile<10>, tile<11>, tile<12>, tile<13>, tile<14>};

}  // namespace

extern "C" {

int mlt_has_bf16() { return 1; }

// out [M, N] (+)= x [M, K] bf16 times packed bf16 weights [ceil(N/32), K/2, 2, 16, 2], + bias. K % 2 == 0.
void mlt_gemm_bf16(const uint16_t* x, int M, int K, const uint16_t* packed, const float* bias, int N, float* out,
                   int accumulate) {
  each_tile(M, N, kMaxTile, [&](int p, int first, int rows) {
    const int column = p * kPanel;
    kTiles[rows](x + static_cast<int64_t>(first) * K, K, packed + static_cast<int64_t>(p) * K * kPanel,
                 bias ? bias + column : nullptr, out + static_cast<int64_t>(first) * N + column, N,
                 std::min(kPanel, N - column), accumulate != 0, first == 0);
  });
}

}  // extern "C"

#else

extern "C" int mlt_has_bf16() { return 0; }

#endif
