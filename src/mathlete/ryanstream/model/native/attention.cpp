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

// One head's part of a block. The scales are null for a bf16 cache.
template <class Cache>
struct Block {
  typename Cache::Value *keys, *values;
  uint16_t *key_scales, *value_scales;

  // The one `distance` values further on.
  Block after(int64_t distance) const {
    if (!Cache::kScaled) return {keys + distance, values + distance, nullptr, nullptr};
    return {keys + distance, values + distance, key_scales + distance / kGroup, value_scales + distance / kGroup};
  }
};

// What a row sees, by block: the first `num_cached` lie in the cache, where `table` says, those of its path in scratch.
template <class Cache>
struct Seen {
  Block<Cache> cache;  // block 0
  int64_t stride;      // from a block of the cache to the next
  const int32_t* table;
  int num_cached;
  Block<Cache> path;  // its first block; the others follow
  int64_t head_size;

  Block<Cache> operator[](int b) const {
    return b < num_cached ? cache.after(table[b] * stride) : path.after((b - num_cached) * head_size);
  }
};

// Attention of one query token's G heads that share a key/value head, over `length` tokens.
// q: [G, D] with stride D. scores: scratch [blocks, G, 16].
template <class Cache, int G>
void attend_one(const float* q, int D, float scale, const Seen<Cache>& seen, int length, float* scores, float* out) {
  const int blocks = (length + kBlockSize - 1) / kBlockSize;
  __m512 peak[G], total[G];
  for (int g = 0; g < G; ++g) peak[g] = _mm512_set1_ps(-INFINITY);
  for (int b = 0; b < blocks; ++b) {
    const Block<Cache> block = seen[b];
    __m512 dot[G];
    for (int g = 0; g < G; ++g) dot[g] = _mm512_setzero_ps();
    for (int start = 0; start < D; start += kGroup) {
      __m512 part[G];
      for (int g = 0; g < G; ++g) part[g] = Cache::kScaled ? _mm512_setzero_ps() : dot[g];
      for (int d = start; d < start + kGroup; ++d) {
        const __m512 key = Cache::load(block.keys + d * kBlockSize);
        for (int g = 0; g < G; ++g) part[g] = _mm512_fmadd_ps(key, _mm512_set1_ps(q[g * D + d]), part[g]);
      }
      if (Cache::kScaled) {
        const __m512 step = load_bf16(block.key_scales + start / kGroup * kBlockSize);
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
      _mm512_storeu_ps(scores + (b * G + g) * kBlockSize, value);
    }
  }
  float norm[G];
  for (int g = 0; g < G; ++g) {
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(peak[g]));
    total[g] = _mm512_setzero_ps();
    for (int b = 0; b < blocks; ++b) {
      float* score = scores + (b * G + g) * kBlockSize;
      const __m512 p = exp_ps(_mm512_sub_ps(_mm512_loadu_ps(score), top));
      total[g] = _mm512_add_ps(total[g], p);
      _mm512_storeu_ps(score, p);
    }
    norm[g] = 1.0f / reduce_add(total[g]);
  }
  for (int d = 0; d < D; d += kGroup) {
    __m512 sum[G][2];
    for (int g = 0; g < G; ++g) sum[g][0] = sum[g][1] = _mm512_setzero_ps();
    for (int b = 0; b < blocks; ++b) {
      const Block<Cache> block = seen[b];
      const float* weights = scores + b * G * kBlockSize;
      const int inside = std::min(kBlockSize, length - b * kBlockSize);
      for (int i = 0; i < inside; ++i) {
        const auto* value = block.values + i * D + d;
        __m512 v0 = Cache::load(value), v1 = Cache::load(value + 16);
        if (Cache::kScaled) {
          const __m512 step = _mm512_set1_ps(from_bf16(block.value_scales[i * (D / kGroup) + d / kGroup]));
          v0 = _mm512_mul_ps(v0, step);
          v1 = _mm512_mul_ps(v1, step);
        }
        for (int g = 0; g < G; ++g) {
          const __m512 p = _mm512_set1_ps(weights[g * kBlockSize + i]);
          sum[g][0] = _mm512_fmadd_ps(p, v0, sum[g][0]);
          sum[g][1] = _mm512_fmadd_ps(p, v1, sum[g][1]);
        }
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
using AttendFn = void (*)(const float*, int, float, const Seen<Cache>&, int, float*, float*);
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

// Copy the key and value of one place, with their scales, from one block to another.
template <class Cache>
void copy_place(const Block<Cache>& from, int src, const Block<Cache>& to, int dst, int D) {
  for (int d = 0; d < D; ++d) to.keys[d * kBlockSize + dst] = from.keys[d * kBlockSize + src];
  std::memcpy(to.values + dst * D, from.values + src * D, D * sizeof(*to.values));
  if (!Cache::kScaled) return;
  const int groups = D / kGroup;
  for (int g = 0; g < groups; ++g) to.key_scales[g * kBlockSize + dst] = from.key_scales[g * kBlockSize + src];
  std::memcpy(to.value_scales + dst * groups, from.value_scales + src * groups, groups * sizeof(uint16_t));
}

// Put what follows the whole blocks of a node's prefix into seen.path, as if the path had been written after the
// prefix: the prefix's last places, then the path's `num` slots.
template <class Cache>
void splice(const Seen<Cache>& seen, int prefix, const int64_t* path, int num, int D) {
  const int filled = prefix % kBlockSize;
  const Block<Cache> last = filled > 0 ? seen.cache.after(seen.table[seen.num_cached] * seen.stride) : seen.path;
  for (int i = 0; i < filled; ++i) copy_place(last, i, seen.path, i, D);
  for (int i = 0; i < num; ++i) {
    const Block<Cache> from = seen.cache.after(path[i] / kBlockSize * seen.stride);
    const int place = filled + i;
    copy_place(from, path[i] % kBlockSize, seen.path.after(place / kBlockSize * seen.head_size), place % kBlockSize, D);
  }
}

template <class Cache>
void attend(const float* qkv, int M, int H, int KV, int D, const Block<Cache>& cache, const int32_t* tables,
            int max_blocks, const int32_t* row_seq, const int32_t* lengths, const int64_t* paths, int max_path,
            float scale, float* out) {
  const int G = H / KV;
  const int64_t head_size = static_cast<int64_t>(kBlockSize) * D;
  const int64_t width = static_cast<int64_t>(H + 2 * KV) * D;
  const AttendFn<Cache> attend_heads = kAttend<Cache>[G];
  parallel(M * KV, [&](int task) {
    const int64_t m = task / KV, h = task % KV;
    const int64_t* path = paths + m * max_path;
    int num = 0;  // places of the path
    while (num < max_path && path[num] >= 0) ++num;
    const int length = lengths[m], blocks = (length + kBlockSize - 1) / kBlockSize;
    const int num_cached = num > 0 ? (length - num) / kBlockSize : blocks;
    const int32_t* table = tables + static_cast<int64_t>(row_seq[m]) * max_blocks;
    // Memory: the scores, then keys, values and the scales of both of the path's blocks.
    const size_t num_scores = static_cast<size_t>(G) * blocks * kBlockSize;
    const size_t num_values = static_cast<size_t>(blocks - num_cached) * head_size;
    const size_t path_bytes = 2 * num_values * sizeof(typename Cache::Value) + 2 * num_values / kGroup * 2;
    float* scores = scratch(num_scores + path_bytes / sizeof(float));
    auto* values = reinterpret_cast<typename Cache::Value*>(scores + num_scores);
    auto* scales = reinterpret_cast<uint16_t*>(values + 2 * num_values);
    const Block<Cache> own{values, values + num_values, scales, scales + num_values / kGroup};
    const Seen<Cache> seen{cache.after(h * head_size), KV * head_size, table, num_cached, own, head_size};
    if (num > 0) splice(seen, length - num, path, num, D);
    attend_heads(qkv + m * width + h * G * D, D, scale, seen, length, scores, out + (m * H + h * G) * D);
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
// paths [M, max_path], padded with -1, or null with max_path 0: the last of what row m sees lie at these slots instead
// of where its table says. Its sums are those of the same tokens in a plain sequence, in the same order.
void mlt_paged_attention(const float* qkv, int M, int H, int KV, int D, void* k_cache, void* v_cache,
                         uint16_t* k_scales, uint16_t* v_scales, const int32_t* tables, int max_blocks,
                         const int32_t* row_seq, const int32_t* lengths, const int64_t* paths, int max_path,
                         float scale, float* out) {
  const auto run = [&](const auto& cache) {
    attend(qkv, M, H, KV, D, cache, tables, max_blocks, row_seq, lengths, paths, max_path, scale, out);
  };
  if (k_scales == nullptr) {
    run(Block<Bf16Cache>{static_cast<uint16_t*>(k_cache), static_cast<uint16_t*>(v_cache), nullptr, nullptr});
  } else {
    run(Block<Int8Cache>{static_cast<int8_t*>(k_cache), static_cast<int8_t*>(v_cache), k_scales, v_scales});
  }
}

}  // extern "C"
