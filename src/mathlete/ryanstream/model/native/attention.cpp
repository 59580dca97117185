// Rotary embedding and attention over the paged KV cache.

#include "common.h"

using namespace mlt;

namespace {

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

}  // namespace

extern "C" {

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

}  // extern "C"
