// Products with 4-bit weights, in groups along K that have a scale each column.
//
// Two kinds, one tile: "int4" (groups of 32; value = scale * code + offset, scale and offset fp16) and "nf4"
// (groups of 64; value = scale * (level[code] - 128), scale = absmax / 127 in fp16, levels in 8 bits). Activations
// are int8 with a scale for each group.
//
// A panel (32 columns) is a stream of groups. A group is [G / 4, 16, 4] bytes, each of two codes: column c in the low
// half, column c + 16 in the high half; then 32 scales; then, for int4, 32 offsets.

#include "common.h"

using namespace mlt;

namespace {

constexpr int kMaxRows = 6;  // of a tile: 12 integer and 12 float accumulators, 2 weights, 4 scales, 1 broadcast

struct Int4 {
  static constexpr int kGroup = 32, kBytes = 32 * 16 + 128;
  static constexpr bool kLookup = false;
};
struct Nf4 {
  static constexpr int kGroup = 64, kBytes = 64 * 16 + 64;
  static constexpr bool kLookup = true;
};

inline __m512 load_fp16(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// R rows x 32 columns over all of K. a: R rows of int8 with stride K; a_scale, a_sum: R rows with stride K / group.
template <class Kind, int R>
void tile(const int8_t* a, int K, const float* a_scale, const int32_t* a_sum, const uint8_t* w, __m512i levels,
          const float* bias, float* out, int64_t ldo, int columns, bool accumulate, bool prefetch) {
  constexpr int kCodes = Kind::kGroup * 16;
  const __m512i low = _mm512_set1_epi8(15);
  const int groups = K / Kind::kGroup;
  __m512 sum[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  for (int g = 0; g < groups; ++g) {
    const uint8_t* group = w + static_cast<int64_t>(g) * Kind::kBytes;
    __m512i acc[R][2];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int k = 0; k < Kind::kGroup / 4; ++k) {
      if (prefetch) _mm_prefetch(reinterpret_cast<const char*>(group + k * 64 + 4096), _MM_HINT_T0);
      const __m512i codes = _mm512_loadu_si512(group + k * 64);
      __m512i w0 = _mm512_and_si512(codes, low);
      __m512i w1 = _mm512_and_si512(_mm512_srli_epi16(codes, 4), low);
      if (Kind::kLookup) {
        w0 = _mm512_shuffle_epi8(levels, w0);
        w1 = _mm512_shuffle_epi8(levels, w1);
      }
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        int32_t four;
        std::memcpy(&four, a + static_cast<int64_t>(r) * K + g * Kind::kGroup + k * 4, 4);
        const __m512i b = _mm512_set1_epi32(four);
        acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], w0, b);
        acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], w1, b);
      }
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m512 scale = load_fp16(group + kCodes + half * 32);
      const __m512 offset =
          Kind::kLookup ? _mm512_mul_ps(scale, _mm512_set1_ps(-128.0f)) : load_fp16(group + kCodes + 64 + half * 32);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const float as = a_scale[static_cast<int64_t>(r) * groups + g];
        const float total = as * static_cast<float>(a_sum[static_cast<int64_t>(r) * groups + g]);
        sum[r][half] =
            _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][half]), scale), _mm512_set1_ps(as), sum[r][half]);
        sum[r][half] = _mm512_fmadd_ps(offset, _mm512_set1_ps(total), sum[r][half]);
      }
    }
  }
  for (int half = 0; half < 2; ++half) {
    const int left = columns - half * 16;
    if (left <= 0) break;
    const __mmask16 mask = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
    const __m512 added = bias ? _mm512_maskz_loadu_ps(mask, bias + half * 16) : _mm512_setzero_ps();
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      float* to = out + r * ldo + half * 16;
      const __m512 before = accumulate ? _mm512_maskz_loadu_ps(mask, to) : _mm512_setzero_ps();
      _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(before, _mm512_add_ps(sum[r][half], added)));
    }
  }
}

using TileFn = void (*)(const int8_t*, int, const float*, const int32_t*, const uint8_t*, __m512i, const float*, float*,
                        int64_t, int, bool, bool);
template <class Kind>
constexpr TileFn kTiles[kMaxRows + 1] = {nullptr,       tile<Kind, 1>, tile<Kind, 2>, tile<Kind, 3>,
                                         tile<Kind, 4>, tile<Kind, 5>, tile<Kind, 6>};

template <class Kind>
void gemm(const int8_t* q, const float* a_scale, const int32_t* a_sum, int M, int K, const uint8_t* packed,
          __m512i levels, const float* bias, int N, float* out, bool accumulate) {
  const int groups = K / Kind::kGroup;
  each_tile(M, N, kMaxRows, [&](int p, int first, int rows) {
    const int column = p * kPanel;
    kTiles<Kind>[rows](q + static_cast<int64_t>(first)* K, K, a_scale + static_cast<int64_t>(first)* groups,
                       a_sum + static_cast<int64_t>(first)* groups,
                       packed + static_cast<int64_t>(p)* groups* Kind::kBytes, levels, bias ? bias + column : nullptr,
                       out + static_cast<int64_t>(first)* N + column, N, std::min(kPanel, N - column), accumulate,
                       first == 0);
  });
}

inline float round_fp16(float x) { return _cvtsh_ss(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }

struct Group {
  float scale, offset;  // as fp16 holds them
  __m512i codes[2];
};

// The best of a few scales for 32 weights, by squared error. A span of n steps for n <= 15 finds weights again that
// lie on a 4-bit grid of fewer levels already (as GGUF's Q4_K holds them); n = 16 and 17 cut off both ends.
inline Group quantize_group(__m512 x0, __m512 x1) {
  const float low = _mm512_reduce_min_ps(_mm512_min_ps(x0, x1));
  const float span = _mm512_reduce_max_ps(_mm512_max_ps(x0, x1)) - low;
  Group best{NAN, NAN, {}};  // stays so when a weight is not a number
  float best_error = INFINITY;
  for (int n : {15, 14, 13, 12, 11, 10, 9, 8, 16, 17}) {
    const float scale = round_fp16(span / n);
    const float offset = round_fp16(n <= 15 ? low : low + (n - 15) * 0.5f * scale);
    const __m512 inverse = _mm512_set1_ps(scale > 0 ? 1.0f / scale : 0.0f);
    const __m512 from = _mm512_set1_ps(offset), step = _mm512_set1_ps(scale);
    const __m512i top = _mm512_set1_epi32(15), zero = _mm512_setzero_si512();
    Group group{scale, offset, {}};
    __m512 squares = _mm512_setzero_ps();
    for (int i = 0; i < 2; ++i) {
      const __m512 x = i ? x1 : x0;
      const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(x, from), inverse));
      group.codes[i] = _mm512_min_epi32(_mm512_max_epi32(code, zero), top);
      const __m512 error = _mm512_sub_ps(x, _mm512_fmadd_ps(_mm512_cvtepi32_ps(group.codes[i]), step, from));
      squares = _mm512_fmadd_ps(error, error, squares);
    }
    const float error = reduce_add(squares);
    if (error < best_error) {
      best_error = error;
      best = group;
    }
  }
  return best;
}

}  // namespace

extern "C" {

// weights [N, K] float32 -> packed panels [ceil(N/32), K/32 * 640] of kind int4. K % 32 == 0.
void mlt_pack_int4(const float* w, int N, int K, uint8_t* packed) {
  const int groups = K / Int4::kGroup;
  parallel((N + kPanel - 1) / kPanel, [&](int p) {
    uint8_t* panel = packed + static_cast<int64_t>(p) * groups * Int4::kBytes;
    std::memset(panel, 0, static_cast<size_t>(groups) * Int4::kBytes);
    for (int c = 0; c < std::min(kPanel, N - p * kPanel); ++c) {
      const float* row = w + static_cast<int64_t>(p * kPanel + c) * K;
      for (int g = 0; g < groups; ++g) {
        const Group best = quantize_group(_mm512_loadu_ps(row + g * 32), _mm512_loadu_ps(row + g * 32 + 16));
        uint8_t codes[32];
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtepi32_epi8(best.codes[0]));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16), _mm512_cvtepi32_epi8(best.codes[1]));
        uint8_t* group = panel + static_cast<int64_t>(g) * Int4::kBytes;
        for (int k = 0; k < 32; ++k) group[k / 4 * 64 + c % 16 * 4 + k % 4] |= codes[k] << (c < 16 ? 0 : 4);
        const uint16_t pair[2] = {_cvtss_sh(best.scale, _MM_FROUND_NO_EXC), _cvtss_sh(best.offset, _MM_FROUND_NO_EXC)};
        std::memcpy(group + 512 + c * 2, pair, 2);
        std::memcpy(group + 576 + c * 2, pair + 1, 2);
      }
    }
  });
}

// out [M, N] (+)= q [M, K] (scales and sums [M, K / 32]) times packed int4 weights, + bias.
void mlt_gemm_int4(const int8_t* q, const float* a_scale, const int32_t* a_sum, int M, int K, const uint8_t* packed,
                   const float* bias, int N, float* out, int accumulate) {
  gemm<Int4>(q, a_scale, a_sum, M, K, packed, _mm512_setzero_si512(), bias, N, out, accumulate != 0);
}

// The same for kind nf4 (scales and sums [M, K / 64]); levels: 16 bytes, each level times 127 plus 128.
void mlt_gemm_nf4(const int8_t* q, const float* a_scale, const int32_t* a_sum, int M, int K, const uint8_t* packed,
                  const uint8_t* levels, const float* bias, int N, float* out, int accumulate) {
  const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
  gemm<Nf4>(q, a_scale, a_sum, M, K, packed, table, bias, N, out, accumulate != 0);
}

}  // extern "C"
