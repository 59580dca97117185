// Activations on their way into a product: RMSNorm or SwiGLU, then int8 (with a scale for each group of a row) or
// bf16. And the size of the thread pool.

#include "common.h"

using namespace mlt;

namespace {

// Where finished rows go: as int8 in groups, a scale and a sum of codes each.
struct ToInt8 {
  int K, group;
  int8_t* q;
  float* scale;
  int32_t* sum;
  void operator()(int64_t m, const float* row) const {
    const int64_t groups = K / group;
    quantize_groups(row, K, group, q + m * K, scale + m * groups, sum + m * groups);
  }
};

// Or as bf16.
struct ToBf16 {
  int K;
  uint16_t* out;
  void operator()(int64_t m, const float* row) const {
    for (int k = 0; k < K; ++k) out[m * K + k] = to_bf16(row[k]);
  }
};

// RMSNorm (Zhang & Sennrich 2019) of x [M, K].
template <class To>
void rmsnorm(const float* x, const float* weight, float eps, int M, int K, const To& to) {
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
    to(m, row);
  });
}

// gate_up [M, 2 I] -> silu(gate) * up [M, I].
template <class To>
void swiglu(const float* gate_up, int M, int I, const To& to) {
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
    to(m, row);
  });
}

}  // namespace

extern "C" {

void mlt_set_threads(int threads) { WorkerPool::get().set_threads(threads); }

// x [M, K] -> q [M, K] int8, scale and sum [M, K / group].
void mlt_quantize(const float* x, int M, int K, int group, int8_t* q, float* scale, int32_t* sum) {
  const ToInt8 to{K, group, q, scale, sum};
  parallel(M, [&](int m) { to(m, x + static_cast<int64_t>(m) * K); });
}

void mlt_rmsnorm_quantize(const float* x, const float* weight, float eps, int M, int K, int group, int8_t* q,
                          float* scale, int32_t* sum) {
  rmsnorm(x, weight, eps, M, K, ToInt8{K, group, q, scale, sum});
}

void mlt_swiglu_quantize(const float* gate_up, int M, int I, int group, int8_t* q, float* scale, int32_t* sum) {
  swiglu(gate_up, M, I, ToInt8{I, group, q, scale, sum});
}

// x [M, K] -> out [M, K] bf16.
void mlt_to_bf16(const float* x, int M, int K, uint16_t* out) {
  const ToBf16 to{K, out};
  parallel(M, [&](int m) { to(m, x + static_cast<int64_t>(m) * K); });
}

void mlt_rmsnorm_bf16(const float* x, const float* weight, float eps, int M, int K, uint16_t* out) {
  rmsnorm(x, weight, eps, M, K, ToBf16{K, out});
}

void mlt_swiglu_bf16(const float* gate_up, int M, int I, uint16_t* out) { swiglu(gate_up, M, I, ToBf16{I, out}); }

}  // extern "C"
