// Rotary embedding and attention over the paged KV cache.

#include "common.h"

using namespace mlt;

namespace {

constexpr int kGroup = 32;  // channels of a head that share a scale in an int8 cache

// A cache in bf16: a K block is [D, 16], a V block [16, D].
struct Bf16Cache {
  using Value = uint16_t;
  static constexpr bool kScaled = false;
  static __m512 load(const Value* p) { return load_bf16(p); }
};

// A cache in int8: the same, and bf16 scales [D / 32, 16] a K block and [16, D / 32] a V block.
struct Int8Cache {
  using Value = int8_t;
  static constexpr bool kScaled = true;
  static __m512 load(const Value* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
};

// Keys and values of one head, by block. The scales are null for a bf16 cache.
template <class Cache>
struct Head {
  const typename Cache::Value *keys, *values;
  const uint16_t *key_scales, *value_scales;
  int64_t stride, scale_stride;  // from a block to the next
};

// Attention of one query token's G heads that share a key/value head, over `length` cached tokens.
// q: [G, D] with stride D. scores: scratch [G, padded length].
template <class Cache, int G>
void attend_one(const float* q, int D, float scale, const Head<Cache>& head, const int32_t* table, int length,
                float* scores, float* out) {
  const int blocks = (length + kBlockSize - 1) / kBlockSize;
  const int padded = blocks * kBlockSize;
  __m512 peak[G], total[G];
  for (int g = 0; g < G; ++g) peak[g] = _mm512_set1_ps(-INFINITY);
  for (int b = 0; b < blocks; ++b) {
    const auto* keys = head.keys + table[b] * head.stride;
    __m512 dot[G];
    for (int g = 0; g < G; ++g) dot[g] = _mm512_setzero_ps();
    for (int start = 0; start < D; start += kGroup) {
      __m512 part[G];
      for (int g = 0; g < G; ++g) part[g] = Cache::kScaled ? _mm512_setzero_ps() : dot[g];
      for (int d = start; d < start + kGroup; ++d) {
        const __m512 key = Cache::load(keys + d * kBlockSize);
        for (int g = 0; g < G; ++g) part[g] = _mm512_fmadd_ps(key, _mm512_set1_ps(q[g * D + d]), part[g]);
      }
      if (Cache::kScaled) {
        const __m512 step = load_bf16(head.key_scales + table[b] * head.scale_stride + start / kGroup * kBlockSize);
        for (int g = 0; g < G; ++g) dot[g] = _mm512_fmadd_ps(part[g], step, dot[g]);
      } else {
        for (int g = 0; g < G; ++g) dot[g] = part[g];
      }
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
  for (int d = 0; d < D; d += kGroup) {
    __m512 sum[G][2];
    for (int g = 0; g < G; ++g) sum[g][0] = sum[g][1] = _mm512_setzero_ps();
    for (int i = 0; i < length; ++i) {
      const int64_t block = table[i / kBlockSize];
      const auto* value = head.values + block * head.stride + (i % kBlockSize) * D + d;
      __m512 v0 = Cache::load(value), v1 = Cache::load(value + 16);
      if (Cache::kScaled) {
        const int64_t at = block * head.scale_stride + (i % kBlockSize) * (D / kGroup) + d / kGroup;
        const __m512 step = _mm512_set1_ps(from_bf16(head.value_scales[at]));
        v0 = _mm512_mul_ps(v0, step);
        v1 = _mm512_mul_ps(v1, step);
      }
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

template <class Cache>
using AttendFn = void (*)(const float*, int, float, const Head<Cache>&, const int32_t*, int, float*, float*);
template <class Cache>
constexpr AttendFn<Cache> kAttend[9] = {
    nullptr,
    attend_one<Cache, 1>,
    attend_one<Cache, 2>,
    attend_one<Cache, 3>,
    attend_one<Cache, 4>,
    attend_one<Cache, 5>,
    attend_one<Cache, 6>,
    attend_one<Cache, 7>,
    attend_one<Cache, 8>,
};

template <class Cache>
void attend(const float* qkv, int M, int H, int KV, int D, const Head<Cache>& all, const int32_t* tables,
            int max_blocks, const int32_t* row_seq, const int32_t* lengths, float scale, float* out) {
  const int G = H / KV;
  const int64_t head_size = static_cast<int64_t>(kBlockSize) * D;
  const int64_t width = static_cast<int64_t>(H + 2 * KV) * D;
  parallel(M * KV, [&](int task) {
    float* scores = scratch(static_cast<size_t>(G) * max_blocks * kBlockSize);
    const int m = task / KV, h = task % KV;
    Head<Cache> head = all;
    head.keys += h * head_size;
    head.values += h * head_size;
    head.key_scales += h * head_size / kGroup;
    head.value_scales += h * head_size / kGroup;
    kAttend<Cache>[G](qkv + m* width + static_cast<int64_t>(h)* G* D, D, scale, head,
                      tables + static_cast<int64_t>(row_seq[m])* max_blocks, lengths[m], scores,
                      out + static_cast<int64_t>(m)* H* D + static_cast<int64_t>(h)* G* D);
  });
}

// Store 32 channels in int8: `codes` `step` apart. Returns their scale, which is rounded before it is used.
// Channels with a NaN or an infinity get a scale that is NaN, so that what reads them is NaN and not garbage.
uint16_t store_group(const float* x, int8_t* codes, int step) {
  float peak = 0;
  bool finite = true;
  for (int i = 0; i < kGroup; ++i) {
    finite = finite && std::isfinite(x[i]);
    peak = std::max(peak, std::fabs(x[i]));
  }
  const uint16_t stored = to_bf16(finite ? peak / 127.0f : NAN);
  const float scale = from_bf16(stored), inverse = finite && scale > kSmallestPeak ? 1.0f / scale : 0.0f;
  for (int i = 0; i < kGroup; ++i) {
    const float code = inverse == 0 ? 0 : std::nearbyint(x[i] * inverse);
    codes[i * step] = static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
  }
  return stored;
}

// RMSNorm of one head in place; D is a multiple of 16.
void normalize_head(float* head, const float* weight, int D, float eps) {
  __m512 sum = _mm512_setzero_ps();
  for (int i = 0; i < D; i += 16) {
    const __m512 x = _mm512_loadu_ps(head + i);
    sum = _mm512_fmadd_ps(x, x, sum);
  }
  const __m512 inverse = _mm512_set1_ps(1.0f / std::sqrt(reduce_add(sum) / D + eps));
  for (int i = 0; i < D; i += 16) {
    const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(head + i), inverse);
    _mm512_storeu_ps(head + i, _mm512_mul_ps(x, _mm512_loadu_ps(weight + i)));
  }
}

}  // namespace

extern "C" {

// Rotary embedding (half-split pairs) of the query and key parts of qkv [M, (H + 2 KV) D], in place for the
// queries; keys and values go into the cache at slot = block * 16 + offset. cos, sin: [positions, D / 2].
// The cache is bf16, or int8 when there are scales. query_norm, key_norm: [D] or null; each head's RMSNorm before the
// rotation.
void mlt_rope_store(float* qkv, int M, int H, int KV, int D, const int32_t* positions, const int64_t* slots,
                    const float* cosines, const float* sines, void* k_cache, void* v_cache, uint16_t* k_scales,
                    uint16_t* v_scales, const float* query_norm, const float* key_norm, float eps) {
  const int half = D / 2;
  const int64_t width = static_cast<int64_t>(H + 2 * KV) * D;
  const int64_t head_size = static_cast<int64_t>(kBlockSize) * D;
  parallel(M, [&](int m) {
    float* row = qkv + m * width;
    const float* c = cosines + static_cast<int64_t>(positions[m]) * half;
    const float* s = sines + static_cast<int64_t>(positions[m]) * half;
    for (int h = 0; h < H + KV; ++h) {
      float* head = row + static_cast<int64_t>(h) * D;
      const float* norm = h < H ? query_norm : key_norm;
      if (norm != nullptr) normalize_head(head, norm, D, eps);
      for (int i = 0; i < half; ++i) {
        const float first = head[i], second = head[i + half];
        head[i] = first * c[i] - second * s[i];
        head[i + half] = second * c[i] + first * s[i];
      }
    }
    const int64_t block = slots[m] / kBlockSize, offset = slots[m] % kBlockSize;
    for (int h = 0; h < KV; ++h) {
      const int64_t at = (block * KV + h) * head_size;
      const float* key = row + static_cast<int64_t>(H + h) * D;
      const float* value = row + static_cast<int64_t>(H + KV + h) * D;
      if (k_scales == nullptr) {
        uint16_t* keys = static_cast<uint16_t*>(k_cache) + at + offset;
        uint16_t* values = static_cast<uint16_t*>(v_cache) + at + offset * D;
        for (int d = 0; d < D; ++d) keys[d * kBlockSize] = to_bf16(key[d]);
        for (int d = 0; d < D; ++d) values[d] = to_bf16(value[d]);
        continue;
      }
      int8_t* keys = static_cast<int8_t*>(k_cache) + at + offset;
      int8_t* values = static_cast<int8_t*>(v_cache) + at + offset * D;
      uint16_t* key_scales = k_scales + at / kGroup + offset;
      uint16_t* value_scales = v_scales + at / kGroup + offset * (D / kGroup);
      for (int g = 0; g < D / kGroup; ++g) {
        const int d = g * kGroup;
        key_scales[g * kBlockSize] = store_group(key + d, keys + d * kBlockSize, kBlockSize);
        value_scales[g] = store_group(value + d, values + d, 1);
      }
    }
  });
}

// Attention over the paged cache (as above). Row m belongs to sequence row_seq[m] and sees lengths[m] cached tokens.
// qkv as above (queries rotated), tables [S, max_blocks], out [M, H D]. Scratch is allocated per thread.
void mlt_paged_attention(const float* qkv, int M, int H, int KV, int D, const void* k_cache, const void* v_cache,
                         const uint16_t* k_scales, const uint16_t* v_scales, const int32_t* tables, int max_blocks,
                         const int32_t* row_seq, const int32_t* lengths, float scale, float* out) {
  const int64_t stride = static_cast<int64_t>(kBlockSize) * D * KV;
  if (k_scales == nullptr) {
    const Head<Bf16Cache> all{
        static_cast<const uint16_t*>(k_cache), static_cast<const uint16_t*>(v_cache), nullptr, nullptr, stride, 0};
    attend(qkv, M, H, KV, D, all, tables, max_blocks, row_seq, lengths, scale, out);
  } else {
    const Head<Int8Cache> all{static_cast<const int8_t*>(k_cache),
                              static_cast<const int8_t*>(v_cache),
                              k_scales,
                              v_scales,
                              stride,
                              stride / kGroup};
    attend(qkv, M, H, KV, D, all, tables, max_blocks, row_seq, lengths, scale, out);
  }
}

}  // extern "C"
