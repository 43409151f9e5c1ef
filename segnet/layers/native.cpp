// A 3×3 convolution in float32 with stride 1 and zero padding, by Winograd's minimal filtering F(4×4, 3×3) (Lavin & Gray,
// CVPR 2016), with unpooling before it, and ReLU and 2×2 max-pooling after it; and the gradient of its kernel. The gradient of
// its input is a convolution, too. segnet/layers/native.py compiles and calls it.
//
// The output is cut into tiles of 4×4 pixels. A tile depends on 6×6 pixels of the input, which start one row above it and one
// column to the left of it. For the input tile d and the kernel g of each pair of an input channel and an output channel,
//
//     output tile = A' [ sum over the input channels of (B' d B) * (G g G') ] A        ' transposes, * is element by element
//
// which needs 36 products for each pair of channels, where the definition needs 16 · 9 = 144. Along one axis this multiplies
// polynomials, by their values at the points 0, a, -a, b, -b and infinity. With s = a², t = b², m = 2s(s - t), n = 2t(t - s):
//
//          ⎡ st    0  -s-t    0   1  0 ⎤        ⎡ 1/(st)   0    0  ⎤
//          ⎢  0  -at    -t    a   1  0 ⎥        ⎢  1/m    a/m  s/m ⎥         ⎡ 1   1   1   1   1  0 ⎤
//     B' = ⎢  0   at    -t   -a   1  0 ⎥    G = ⎢  1/m   -a/m  s/m ⎥    A' = ⎢ 0   a  -a   b  -b  0 ⎥
//          ⎢  0  -bs    -s    b   1  0 ⎥        ⎢  1/n    b/n  t/n ⎥         ⎢ 0   s   s   t   t  0 ⎥
//          ⎢  0   bs    -s   -b   1  0 ⎥        ⎢  1/n   -b/n  t/n ⎥         ⎣ 0  as -as  bt -bt  1 ⎦
//          ⎣  0   st     0 -s-t   0  1 ⎦        ⎣   0      0    1  ⎦
//
// The usual points are a = 1 and b = 2. Those below have a third of their rounding error, and A' and B' are exact in float32.
//
// Maps are stored as (image, row, column, channel), which torch calls channels_last. For each of the 36 elements of a tile, the
// sum over the input channels is a product of matrices, (tiles, C) times (C, K). It is computed for blocks of at most MOST_TILES
// tiles, whose transformed inputs and sums stay in the caches. A panel is WIDE vectors of LANES output channels, the last panel
// is what is left; ROWS tiles times a panel are summed in registers, over CHANNELS input channels at a time.
//
//     kernels   [36][panel][C][output channels of the panel]                     G g G', made once; then K values of the bias
//     inputs    [36][group of ROWS tiles][group of LANES input channels][ROWS][LANES]                B' d B, of one block
//     sums      [tile][36][output channels]                                                          of one block
//
// In training, where kernels change in each step, a layer with few tiles and many channels does not store them: a thread transforms
// CHANNELS input channels and PART output channels, multiplies them with all its tiles, and goes on with the next ones.
//
// Every value comes from the same operations in the same order, whatever the block, the number of threads and the way of these two.
// A NaN or an infinity in the input makes all outputs NaN or infinite that depend on it, and all others of the tile that it is
// in. Inputs beyond about 1e37 may do so too, because the transforms overflow.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

constexpr float a = 0.625f, b = 1.5f, s = a * a, t = b * b;

#ifdef __AVX512F__
constexpr long LANES = 16, ROWS = 6, WIDE = 4;  // 24 sums and 4 kernels in 32 registers
#else
constexpr long LANES = 8, ROWS = 6, WIDE = 2;  // 12 sums, 2 kernels and 1 input in 16 registers
#endif
constexpr long PANEL = WIDE * LANES;
constexpr long MOST_TILES_AT_ONCE = 128;  // of a block whose kernels are transformed for it alone
constexpr long MOST_TILES = 48, FEW_TILES = 24;  // of a block; measured
constexpr long CHANNELS = 64;  // input channels that are summed at once: their kernels stay in a cache, and errors grow slower

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));
typedef float StoredVector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(LANES * 4)));  // half as many
typedef float StoredHalf __attribute__((vector_size(LANES * 2), aligned(4), may_alias));
typedef uint8_t StoredBytes __attribute__((vector_size(LANES), aligned(1), may_alias));

// What the matrices have that are multiplied: float, or pairs of bfloat16, which the processor multiplies faster. Their products
// are summed in float. Such a pair is of neighbouring input channels, whose number must then be even.
template <typename Element>
constexpr long PAIR = sizeof(float) / sizeof(Element);

#ifdef __AVX512BF16__
struct BFloat16 {
    uint16_t bits;  // the upper half of a float
};
#endif

inline long divided_up(long n, long divisor) { return (n + divisor - 1) / divisor; }
inline long rounded_up(long n, long multiple) { return divided_up(n, multiple) * multiple; }

inline Vector load(const float* from) { return *reinterpret_cast<const StoredVector*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<StoredVector*>(to) = value; }
inline Doubles load_doubles(const float* from) {
    return __builtin_convertvector(*reinterpret_cast<const StoredHalf*>(from), Doubles);
}
inline void store(float* to, Doubles value) {
    *reinterpret_cast<StoredHalf*>(to) = __builtin_convertvector(value, StoredHalf);
}
#ifdef __AVX512BF16__
inline void store(BFloat16* to, Vector value) {
    const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(value));
    std::memcpy(to, &rounded, sizeof rounded);
}
#endif
inline Integers load(const uint8_t* from) {
    return __builtin_convertvector(*reinterpret_cast<const StoredBytes*>(from), Integers);
}
inline void store(uint8_t* to, Integers value) {
    *reinterpret_cast<StoredBytes*>(to) = __builtin_convertvector(value, StoredBytes);
}

// Store the first `count` elements, at most LANES. The pieces have constant sizes, so that no function is called.
template <typename Element, typename Values>
inline void store_first(Element* to, Values values, long count) {
    if (count >= LANES) return store(to, values);
    Element all[LANES];
    store(all, values);
    const Element* from = all;
    for (long size = LANES / 2; size; size /= 2)
        if (count & size) {
            std::memcpy(to, from, size * sizeof(Element));
            to += size;
            from += size;
        }
}

// Load the first `count` elements, at most LANES, and zeros after them.
inline Vector load_first(const float* from, long count) {
    if (count >= LANES) return load(from);
    float all[LANES] = {};
    for (long i = 0; i < count; ++i) all[i] = from[i];
    return load(all);
}

// x becomes B' x, for x[0], x[step], …, x[5 step].
template <int step>
inline void transform_input(Vector* x) {
    const Vector x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step], x5 = x[5 * step];
    const Vector even_a = x4 - t * x2, odd_a = a * (x3 - t * x1);
    const Vector even_b = x4 - s * x2, odd_b = b * (x3 - s * x1);
    x[0] = s * t * x0 - (s + t) * x2 + x4;
    x[step] = even_a + odd_a;
    x[2 * step] = even_a - odd_a;
    x[3 * step] = even_b + odd_b;
    x[4 * step] = even_b - odd_b;
    x[5 * step] = s * t * x1 - (s + t) * x3 + x5;
}

// The first four of x become A' x, for x[0], x[step], …, x[5 step].
template <int step>
inline void transform_sums(Vector* x) {
    const Vector sum_a = x[step] + x[2 * step], difference_a = x[step] - x[2 * step];
    const Vector sum_b = x[3 * step] + x[4 * step], difference_b = x[3 * step] - x[4 * step];
    x[0] = x[0] + sum_a + sum_b;
    x[step] = a * difference_a + b * difference_b;
    x[2 * step] = s * sum_a + t * sum_b;
    x[3 * step] = a * s * difference_a + b * t * difference_b + x[5 * step];
}

// The first four of x become A x.
template <int step>
inline void transform_gradient(Vector* x) {
    const Vector x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step];
    const Vector even_a = x0 + s * x2, odd_a = a * (x1 + s * x3);
    const Vector even_b = x0 + t * x2, odd_b = b * (x1 + t * x3);
    x[step] = even_a + odd_a;
    x[2 * step] = even_a - odd_a;
    x[3 * step] = even_b + odd_b;
    x[4 * step] = even_b - odd_b;
    x[5 * step] = x3;
}

// The six of x become G' x, the first three.
template <int step>
inline void transform_kernel_gradient(Vector* x) {
    constexpr float m = 2 * s * (s - t), n = 2 * t * (t - s);
    const Vector sum_a = x[step] + x[2 * step], difference_a = x[step] - x[2 * step];
    const Vector sum_b = x[3 * step] + x[4 * step], difference_b = x[3 * step] - x[4 * step];
    x[0] = (1 / (s * t)) * x[0] + (1 / m) * sum_a + (1 / n) * sum_b;
    x[step] = (a / m) * difference_a + (b / n) * difference_b;
    x[2 * step] = (s / m) * sum_a + (t / n) * sum_b + x[5 * step];
}

// The six of x become G x, from the first three.
template <int step>
inline void transform_kernel(Doubles* x) {
    constexpr double m = 2.0 * s * (s - t), n = 2.0 * t * (t - s);
    const Doubles x0 = x[0], x1 = x[step], x2 = x[2 * step];
    const Doubles even_a = 1 / m * (x0 + double{s} * x2), odd_a = a / m * x1;
    const Doubles even_b = 1 / n * (x0 + double{t} * x2), odd_b = b / n * x1;
    x[0] = 1.0 / (double{s} * t) * x0;
    x[step] = even_a + odd_a;
    x[2 * step] = even_a - odd_a;
    x[3 * step] = even_b + odd_b;
    x[4 * step] = even_b - odd_b;
    x[5 * step] = x2;
}

inline void add_product(Vector& sum, const float* input, const float* kernels) { sum += *input * load(kernels); }
#ifdef __AVX512BF16__
inline void add_product(Vector& sum, const BFloat16* inputs, const BFloat16* kernels) {
    int pair;
    std::memcpy(&pair, inputs, sizeof pair);
    const __m512i pairs = _mm512_set1_epi32(pair), kernel_pairs = _mm512_loadu_si512(kernels);
    sum = reinterpret_cast<Vector>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(kernel_pairs),
                                                    reinterpret_cast<__m512bh>(pairs)));
}
#endif

// The sums of so many tiles and vectors of output channels, (rows, C) times (C, vectors * LANES), for one element of a tile.
// With `add` they are added to those that are there.
template <typename Element, int rows, int vectors>
void multiply(const Element* inputs, const Element* kernels, long channels, float* sums, long stride, bool add) {
    constexpr long pair = PAIR<Element>;
    Vector sum[rows][vectors] = {};
    for (; channels > 0; channels -= LANES, inputs += ROWS * LANES) {
        const long count = std::min(channels, LANES);
        for (long c = 0; c < count; c += pair, kernels += vectors * LANES * pair)
#pragma GCC unroll 8
            for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
                for (int v = 0; v < vectors; ++v) add_product(sum[r][v], inputs + r * LANES + c, kernels + v * LANES * pair);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            float* to = sums + r * stride + v * LANES;
            store(to, add ? load(to) + sum[r][v] : sum[r][v]);
        }
}

template <typename Element>
using Multiplication = void (*)(const Element*, const Element*, long, float*, long, bool);

// `multiply` for numbers that are known only when the program runs.
template <typename Element, int most_rows = ROWS, int most_vectors = WIDE>
Multiplication<Element> multiplication(long rows, long vectors) {
    if constexpr (most_rows > 1)
        if (rows < most_rows) return multiplication<Element, most_rows - 1, most_vectors>(rows, vectors);
    if constexpr (most_vectors > 1)
        if (vectors < most_vectors) return multiplication<Element, most_rows, most_vectors - 1>(rows, vectors);
    return multiply<Element, most_rows, most_vectors>;
}

// Ask for large pages, whose first use costs less; the system may ignore it.
void use_large_pages(float* memory, long floats) {
#ifdef MADV_HUGEPAGE
    constexpr uintptr_t page = 1 << 21;
    const uintptr_t start = reinterpret_cast<uintptr_t>(memory), first = (start + page - 1) / page * page;
    const uintptr_t end = (start + floats * sizeof(float)) / page * page;
    if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

// Memory of one thread, which keeps it for its next call.
class Scratch {
  public:
    ~Scratch() { std::free(memory_); }

    // Null where memory is short.
    float* of_size(long floats) {
        if (floats > floats_) {
            std::free(memory_);
            memory_ = static_cast<float*>(std::aligned_alloc(64, rounded_up(floats * sizeof(float), 64)));
            floats_ = memory_ ? floats : 0;
            use_large_pages(memory_, floats_);
        }
        return memory_;
    }

  private:
    float* memory_ = nullptr;
    long floats_ = 0;
};

thread_local Scratch scratch;

// OpenMP's GOMP_parallel: calls a function with a pointer in each of so many threads. Null: there is one thread.
typedef void (*Parallel)(void (*)(void*), void*, unsigned, unsigned);

// Call `work` with 0, …, count - 1. Each thread takes the next number until there are no more.
template <typename Work>
void for_each(long count, long threads, Parallel parallel, const Work& work) {
    struct Shared {
        const Work& work;
        const long count;
        std::atomic<long> next{0};

        static void run(void* pointer) {
            Shared& shared = *static_cast<Shared*>(pointer);
            for (long item; (item = shared.next++) < shared.count;) shared.work(item);
        }
    } shared{work, count};
    if (threads > 1 && count > 1)
        parallel(Shared::run, &shared, static_cast<unsigned>(std::min(threads, count)), 0);
    else
        Shared::run(&shared);
}

// The numbers of a tile among those of a map of this size.
struct Place {
    long image, row, column;

    Place(long tile, long height, long width) {
        const long rows = divided_up(height, 4), columns = divided_up(width, 4);
        image = tile / columns / rows;
        row = tile / columns % rows;
        column = tile % columns;
    }
};

// Some rows and columns of a map, with zeros outside it.
template <int side>
struct Window {
    const float* x;
    const uint8_t* places;
    long row, column;  // elements from one to the next

    // `places` may be null. The window starts at (top, left), which may be outside. Channels beyond those of the map, up to
    // `padded`, have any values. `patch` is memory for side * side * padded floats and bytes.
    Window(const float* map, const uint8_t* map_places, long batch, long height, long width, long channels, long padded,
           long image, long top, long left, float* patch) {
        const auto offset = [=](long r, long q) { return ((image * height + top + r) * width + left + q) * channels; };
        const bool inside = 0 <= top && 0 <= left && top + side <= height && left + side <= width;
        if (inside && offset(side - 1, side - 1) + padded <= batch * height * width * channels) {
            x = map + offset(0, 0);
            places = map_places ? map_places + offset(0, 0) : nullptr;
            row = width * channels;
            column = channels;
            return;
        }
        uint8_t* patch_places = reinterpret_cast<uint8_t*>(patch + side * side * padded);
        std::memset(patch, 0, side * side * padded * (sizeof(float) + (map_places != nullptr)));
        for (long r = std::max(0L, -top); r < std::min<long>(side, height - top); ++r)
            for (long q = std::max(0L, -left); q < std::min<long>(side, width - left); ++q) {
                const long to = (r * side + q) * padded;
                std::memcpy(patch + to, map + offset(r, q), channels * sizeof(float));
                if (map_places) std::memcpy(patch_places + to, map_places + offset(r, q), channels);
            }
        x = patch;
        places = patch_places;
        row = side * padded;
        column = padded;
    }
};

// Numbers from one element of a tile to the next, in `kernels`; a vector more than needed, as in `Block`.
inline long kernel_plane(long channels, long outputs) { return channels * rounded_up(outputs, LANES) + LANES; }

// The kernels of a layer as torch has them, (K, C, 3, 3) with so many floats from one element to the next. With `flipped` their
// rows and columns are taken in reverse order.
struct Weight {
    const float* data;
    long channels, outputs, next_output, next_channel, next_row, next_column;
    bool flipped;

    // Write G g G' for LANES output channels from k on and `count` input channels from c on into a panel of so many output channels:
    // element i to to + i * plane.
    template <typename Element>
    void transform(long k, long c, long count, Element* to, long plane, long panel) const {
        float g[LANES][9][LANES];  // of so many input channels
        for (long first = 0; first < count; first += LANES) {
            const long some = std::min(LANES, count - first);
            read(k, c + first, some, g);
            for (long j = 0; j < some; ++j)
                for (long half = 0; half < LANES; half += LANES / 2) {
                    Doubles x[36];
                    for (int i = 0; i < 9; ++i) x[i / 3 * 6 + i % 3] = load_doubles(g[j][i] + half);
                    for (int q = 0; q < 3; ++q) transform_kernel<6>(x + q);
                    for (int r = 0; r < 6; ++r) transform_kernel<1>(x + 6 * r);
                    for (int i = 0; i < 36; ++i) store_channel(to + i * plane, first + j, panel, half, x[i]);
                }
        }
    }

    // Store output channels from k on of input channel c of a panel.
    static void store_channel(float* to, long c, long panel, long k, Doubles value) { store(to + c * panel + k, value); }
#ifdef __AVX512BF16__
    static void store_channel(BFloat16* to, long c, long panel, long k, Doubles value) {
        const auto floats = __builtin_convertvector(value, StoredHalf);
        const __m128bh rounded = _mm256_cvtneps_pbh(reinterpret_cast<__m256>(floats));
        BFloat16 all[LANES / 2];
        std::memcpy(all, &rounded, sizeof all);
        for (long i = 0; i < LANES / 2; ++i) to[c / 2 * 2 * panel + 2 * (k + i) + c % 2] = all[i];
    }
#endif

    // Read LANES output channels from k on of `count` input channels from c on; zeros where there are no more.
    void read(long k, long c, long count, float (*g)[9][LANES]) const {
        const long lanes = std::min(LANES, outputs - k);
        if (lanes < LANES) std::memset(g, 0, LANES * sizeof(*g));
        for (long i = 0; i < 9; ++i) {
            const long j = flipped ? 8 - i : i;
            const float* from = data + k * next_output + c * next_channel + j / 3 * next_row + j % 3 * next_column;
            if (next_output < next_channel)  // neighbours in memory first, which share lines of a cache
                for (long d = 0; d < count; ++d)
                    for (long lane = 0; lane < lanes; ++lane) g[d][i][lane] = from[d * next_channel + lane * next_output];
            else
                for (long lane = 0; lane < lanes; ++lane)
                    for (long d = 0; d < count; ++d) g[d][i][lane] = from[d * next_channel + lane * next_output];
        }
    }
};

template <typename Element>
struct Convolution {
    const float* x;         // (batch, H, W, C), or the values to unpool (batch, ⌈H/2⌉, ⌈W/2⌉, C)
    const uint8_t* places;  // of these values: 2 * row + column in the 2×2 window; null: no unpooling
    const Element* kernels; // made by segnet_transform_kernel, or null
    float* out;             // (batch, H, W, K), or pooled (batch, ⌈H/2⌉, ⌈W/2⌉, K)
    uint8_t* winners;       // the places of the pooled values; null: no pooling
    long batch, height, width, channels, outputs;
    bool relu;
    Weight weight;             // in their place, where these are null
    const float* weight_bias;  // (K), or null

    long tile_rows() const { return divided_up(height, 4); }
    long tile_columns() const { return divided_up(width, 4); }
    long tiles() const { return batch * tile_rows() * tile_columns(); }
    long padded_channels() const { return rounded_up(channels, LANES); }
    long padded_outputs() const { return rounded_up(outputs, LANES); }
    long kernel_plane() const { return ::kernel_plane(channels, outputs); }

    Vector bias(long k) const {
        if (kernels) return load(reinterpret_cast<const float*>(kernels + 36 * kernel_plane()) + k);
        return weight_bias ? load_first(weight_bias + k, outputs - k) : Vector{};
    }
};

// A block of tiles and a part of the output channels: what one thread computes at a time.
template <typename Element>
class Block {
  public:
    Block(const Convolution<Element>& layer, long first_tile, long tiles, long first_output, long outputs)
        : layer_(layer), first_tile_(first_tile), tiles_(tiles), first_output_(first_output), outputs_(outputs),
          at_once_(layer.kernels ? outputs : std::min(outputs, PART)),
          plane_(rounded_up(tiles, ROWS) * layer.padded_channels() + LANES), stride_(at_once_ + LANES) {}

    // False where memory is short.
    bool compute() {
        const long in_sums = 36 * stride_ * tiles_, in_patch = 36 * layer_.padded_channels(), in_inputs = 36 * plane_;
        const long in_kernels = layer_.kernels ? 0 : 36 * kernel_plane();
        sums_ = scratch.of_size(in_sums + in_patch + (in_inputs + in_kernels) / PAIR<Element>);
        if (!sums_) return false;
        patch_ = sums_ + in_sums;
        inputs_ = reinterpret_cast<Element*>(patch_ + in_patch);
        kernels_ = inputs_ + in_inputs;
        for (long tile = 0; tile < tiles_; ++tile) layer_.places ? read<4>(tile) : read<6>(tile);
        for (long k = 0; k < outputs_; k += at_once_) {
            const long outputs = std::min(at_once_, outputs_ - k);
            layer_.kernels ? multiply_all(first_output_ + k, outputs) : transform_and_multiply_all(first_output_ + k, outputs);
            for (long tile = 0; tile < tiles_; ++tile) write(tile, first_output_ + k, outputs);
        }
        return true;
    }

  private:
    static constexpr long PART = 64;  // output channels whose kernels are transformed at once

    const Convolution<Element>& layer_;
    const long first_tile_, tiles_, first_output_, outputs_;  // `outputs` is a multiple of LANES
    const long at_once_;  // of them are multiplied, then written
    const long plane_, stride_;  // numbers from one element of a tile to the next, in `inputs` and in `sums`; LANES more than
                                 // needed, so that the elements of a tile do not compete for the same lines of a cache
    float *sums_ = nullptr, *patch_ = nullptr;
    Element *inputs_ = nullptr, *kernels_ = nullptr;

    long kernel_plane() const { return CHANNELS * at_once_ + LANES; }

    Place place(long tile) const { return {first_tile_ + tile, layer_.height, layer_.width}; }

    // Transform the inputs of a tile: side = 6 rows and columns of the map, or 4 of pooled values, which are unpooled.
    template <int side>
    void read(long tile) {
        constexpr bool unpools = side == 4;
        const long height = unpools ? divided_up(layer_.height, 2) : layer_.height;
        const long width = unpools ? divided_up(layer_.width, 2) : layer_.width;
        const long channels = layer_.channels, padded = layer_.padded_channels();
        const auto [image, tile_row, tile_column] = place(tile);
        const Window<side> window(layer_.x, layer_.places, layer_.batch, height, width, channels, padded, image,
                                  tile_row * (side - 2) - 1, tile_column * (side - 2) - 1, patch_);
        Element* to = inputs_ + tile / ROWS * ROWS * padded + tile % ROWS * LANES;
        for (long c = 0; c < padded; c += LANES, to += ROWS * LANES) {  // lanes beyond `channels` are not used
            Vector d[36];
            for (int r = 0; r < side; ++r)
                for (int q = 0; q < side; ++q) {
                    const long from = r * window.row + q * window.column + c;
                    if constexpr (unpools)
                        unpool(d, r, q, load(window.x + from), load(window.places + from));
                    else
                        d[r * 6 + q] = load(window.x + from);
                }
            for (int q = 0; q < 6; ++q) transform_input<6>(d + q);
            for (int r = 0; r < 6; ++r) transform_input<1>(d + 6 * r);
            for (int i = 0; i < 36; ++i) store(to + i * plane_, d[i]);
        }
    }

    // Write the value of window (r, q) and its zeros into a tile, whose first pixel is the last of window (0, 0).
    static inline void unpool(Vector* d, int r, int q, Vector value, Integers place) {
        for (int i = 0; i < 4; ++i) {
            const int y = 2 * r - 1 + i / 2, z = 2 * q - 1 + i % 2;
            if (0 <= y && y < 6 && 0 <= z && z < 6) d[6 * y + z] = place == i ? value : Vector{};
        }
    }

    // For the output channels `first`, …, first + outputs - 1.
    void multiply_all(long first, long outputs) {
        for (int i = 0; i < 36; ++i)
            for (long k = 0; k < outputs; k += PANEL)
                for (long c = 0; c < layer_.channels; c += CHANNELS) {
                    const long vectors = std::min(PANEL, outputs - k) / LANES;
                    const Element* kernels = layer_.kernels + i * layer_.kernel_plane() + (first + k) * layer_.channels;
                    multiply_tiles(i, k, c, vectors, kernels + c * vectors * LANES);
                }
    }

    // The same without transformed kernels.
    void transform_and_multiply_all(long first, long outputs) {
        for (long c = 0; c < layer_.channels; c += CHANNELS) {
            const long count = std::min(CHANNELS, layer_.channels - c);
            for (long k = 0; k < outputs; k += LANES) {
                const long panel = k / PANEL * PANEL, width = std::min(PANEL, outputs - panel);
                Element* to = kernels_ + panel * count + (k - panel) * PAIR<Element>;
                layer_.weight.transform(first + k, c, count, to, kernel_plane(), width);
            }
            for (int i = 0; i < 36; ++i)
                for (long k = 0; k < outputs; k += PANEL)
                    multiply_tiles(i, k, c, std::min(PANEL, outputs - k) / LANES, kernels_ + i * kernel_plane() + k * count);
        }
    }

    // Add the products of CHANNELS input channels from c on and a panel of kernels from k on.
    void multiply_tiles(int i, long k, long c, long vectors, const Element* kernels) {
        const long channels = std::min(CHANNELS, layer_.channels - c);
        for (long tile = 0; tile < tiles_; tile += ROWS) {
            const Element* inputs = inputs_ + i * plane_ + tile * layer_.padded_channels() + c * ROWS;
            float* sums = sums_ + (36 * tile + i) * stride_ + k;
            multiplication<Element>(std::min(ROWS, tiles_ - tile), vectors)(inputs, kernels, channels, sums, 36 * stride_, c > 0);
        }
    }

    void write(long tile, long first, long outputs) {
        for (long k = 0; k < outputs; k += LANES) {
            Vector y[36];
            for (int i = 0; i < 36; ++i) y[i] = load(sums_ + (36 * tile + i) * stride_ + k);
            for (int q = 0; q < 6; ++q) transform_sums<6>(y + q);
            for (int r = 0; r < 4; ++r) transform_sums<1>(y + 6 * r);
            const Vector bias = layer_.bias(first + k);
            for (int i = 0; i < 24; ++i) {
                y[i] += bias;
                if (layer_.relu) y[i] = y[i] < 0 ? Vector{} : y[i];  // NaN stays NaN
            }
            layer_.winners ? write_pooled(tile, y, first + k) : write_map(tile, y, first + k);
        }
    }

    // y has rows of 6 vectors, of which the first 4 are pixels.
    void write_map(long tile, const Vector* y, long k) const {
        const auto [image, tile_row, tile_column] = place(tile);
        const long top = 4 * tile_row, left = 4 * tile_column;
        for (long r = 0; r < std::min(4L, layer_.height - top); ++r)
            for (long q = 0; q < std::min(4L, layer_.width - left); ++q) {
                const long pixel = (image * layer_.height + top + r) * layer_.width + left + q;
                store_first(layer_.out + pixel * layer_.outputs + k, y[6 * r + q], layer_.outputs - k);
            }
    }

    void write_pooled(long tile, const Vector* y, long k) const {
        const auto [image, tile_row, tile_column] = place(tile);
        const long rows = std::min(4L, layer_.height - 4 * tile_row), columns = std::min(4L, layer_.width - 4 * tile_column);
        const long height = divided_up(layer_.height, 2), width = divided_up(layer_.width, 2);
        for (long r = 0; r < rows; r += 2)
            for (long q = 0; q < columns; q += 2) {
                Vector value = y[6 * r + q];
                Integers winner = {};
                for (int i = 1; i < 4; ++i) {
                    if (r + i / 2 >= rows || q + i % 2 >= columns) continue;
                    const Vector other = y[6 * (r + i / 2) + q + i % 2];
                    const Integers better = (other > value) | (other != other);  // NaN wins, as in torch
                    value = better ? other : value;
                    winner = better ? Integers{} + i : winner;
                }
                const long pixel = (image * height + 2 * tile_row + r / 2) * width + 2 * tile_column + q / 2;
                store_first(layer_.out + pixel * layer_.outputs + k, value, layer_.outputs - k);
                store_first(layer_.winners + pixel * layer_.outputs + k, winner, layer_.outputs - k);
            }
    }
};

// The gradient of the kernel of a convolution, from its input x and the gradient of its output. Both are cut into tiles. In
// the notation above, with the output tile's gradient e,
//
//     gradient of the kernel = G' [ sum over the tiles of (B' d B) * (A e A') ] G
//
// For each of the 36 elements the sum over the tiles is a product of matrices, (K, tiles) times (tiles, C). It is computed for
// a chunk of tiles after the other, whose number depends on the channels alone, so that no bit depends on the threads.
//
//     inputs    [36][tile][C], one vector apart        B' d B, of one chunk
//     grads     [36][tile][K], one vector apart        A e A', of one chunk
//     biases    [tile][K]                              the sums of e, or [tile][C] those of x
//     sums      [36][K][C]                             of all chunks
class KernelGradient {
  public:
    // With `sums_input` the gradient of the bias is the sum of x, as in a deconvolution, where x and `grad` are exchanged.
    KernelGradient(const float* x, const float* grad, long batch, long height, long width, long channels, long outputs,
                   bool sums_input)
        : x_(x), grad_(grad), batch_(batch), height_(height), width_(width), channels_(channels), outputs_(outputs),
          biases_count_(sums_input ? channels : outputs), sums_input_(sums_input) {
        tiles_ = batch * divided_up(height, 4) * divided_up(width, 4);
        padded_channels_ = rounded_up(channels, LANES);
        padded_outputs_ = rounded_up(outputs, LANES);
        input_stride_ = padded_channels_ + LANES;
        grad_stride_ = padded_outputs_ + LANES;
        // Few tiles stay in a cache, many save passes over the sums. (Measured.)
        const long least = std::clamp((channels + outputs) / 4, 48L, 128L);
        chunk_ = std::clamp(CACHED_FLOATS / (36 * (input_stride_ + grad_stride_)), least, 384L);
        chunk_ = std::min(chunk_, tiles_);
        // A sum of n numbers has the least error as about √n sums of √n numbers.
        tiles_at_once_ = std::max(TILES, static_cast<long>(std::sqrt(static_cast<double>(tiles_))));
    }

    long floats() const {
        return chunk_ * 36 * (input_stride_ + grad_stride_) + 36 * outputs_ * padded_channels_ + (chunk_ + 1) * biases_stride();
    }

    // Write the gradients of the kernel, (K, 3, 3, C), and of the bias, (K). `memory` has `floats()`. False where more is short.
    bool compute(float* memory, float* kernel, float* bias, long threads, Parallel parallel) {
        inputs_ = memory;
        grads_ = inputs_ + chunk_ * 36 * input_stride_;
        biases_ = grads_ + chunk_ * 36 * grad_stride_;
        bias_ = biases_ + chunk_ * biases_stride();
        sums_ = bias_ + biases_stride();
        use_large_pages(memory, floats());
        std::atomic<bool> failed{false};
        const long panels = divided_up(padded_channels_, PANEL), parts = divided_up(outputs_, PART);
        for (long first = 0; first < tiles_; first += chunk_) {
            const long tiles = std::min(chunk_, tiles_ - first);
            for_each(tiles, threads, parallel, [&](long tile) {
                if (!transform(first + tile, tile)) failed = true;
            });
            for_each(36 * panels * parts + 1, threads, parallel, [&](long item) {
                if (item-- == 0) return add_biases(tiles, first == 0);
                multiply(item / parts / panels, item / parts % panels * PANEL, item % parts * PART, tiles, first == 0);
            });
        }
        for_each(outputs_, threads, parallel, [&](long k) { finish(k, kernel); });
        std::memcpy(bias, bias_, biases_count_ * sizeof(float));
        return !failed;
    }

  private:
    static constexpr long CACHED_FLOATS = 1 << 18;
    static constexpr long PART = 16 * ROWS;  // output channels that are multiplied at once
    static constexpr long TILES = 24;        // that are summed in registers, or more; with fewer it takes longer (measured)

    const float *x_, *grad_;
    const long batch_, height_, width_, channels_, outputs_, biases_count_;
    const bool sums_input_;
    long tiles_, padded_channels_, padded_outputs_, input_stride_, grad_stride_, chunk_, tiles_at_once_;
    float *inputs_ = nullptr, *grads_ = nullptr, *biases_ = nullptr, *sums_ = nullptr, *bias_ = nullptr;

    long biases_stride() const { return rounded_up(biases_count_, LANES); }

    // Transform the inputs and the gradients of tile `number`, the chunk's `tile`.
    bool transform(long number, long tile) {
        float* patch = scratch.of_size(36 * std::max(padded_channels_, padded_outputs_));
        if (!patch) return false;
        const auto [image, row, column] = Place(number, height_, width_);
        {
            const Window<6> window(x_, nullptr, batch_, height_, width_, channels_, padded_channels_, image, 4 * row - 1,
                                   4 * column - 1, patch);
            for (long c = 0; c < padded_channels_; c += LANES) {
                Vector d[36];
                for (int r = 0; r < 6; ++r)
                    for (int q = 0; q < 6; ++q) d[6 * r + q] = load(window.x + r * window.row + q * window.column + c);
                if (sums_input_) {
                    Vector sum = {};
                    for (int i = 0; i < 16; ++i) sum += d[6 * (i / 4 + 1) + i % 4 + 1];
                    store(biases_ + tile * biases_stride() + c, sum);
                }
                for (int q = 0; q < 6; ++q) transform_input<6>(d + q);
                for (int r = 0; r < 6; ++r) transform_input<1>(d + 6 * r);
                for (int i = 0; i < 36; ++i) store(inputs_ + (i * chunk_ + tile) * input_stride_ + c, d[i]);
            }
        }
        const Window<4> window(grad_, nullptr, batch_, height_, width_, outputs_, padded_outputs_, image, 4 * row, 4 * column,
                               patch);
        for (long k = 0; k < padded_outputs_; k += LANES) {
            Vector e[36], sum = {};
            for (int r = 0; r < 4; ++r)
                for (int q = 0; q < 4; ++q) {
                    e[6 * r + q] = load(window.x + r * window.row + q * window.column + k);
                    sum += e[6 * r + q];
                }
            for (int q = 0; q < 4; ++q) transform_gradient<6>(e + q);
            for (int r = 0; r < 6; ++r) transform_gradient<1>(e + 6 * r);
            for (int i = 0; i < 36; ++i) store(grads_ + (i * chunk_ + tile) * grad_stride_ + k, e[i]);
            if (!sums_input_) store(biases_ + tile * biases_stride() + k, sum);
        }
        return true;
    }

    void add_biases(long tiles, bool first) {
        for (long k = 0; k < biases_stride(); k += LANES) {
            Vector sum = {};
            for (long tile = 0; tile < tiles; ++tile) sum += load(biases_ + tile * biases_stride() + k);
            store(bias_ + k, first ? sum : load(bias_ + k) + sum);
        }
    }

    // Add the products of a chunk for element i, a panel of input channels and a part of the output channels.
    void multiply(long i, long c, long k, long tiles, bool first) {
        const long vectors = std::min(PANEL, padded_channels_ - c) / LANES, last = std::min(k + PART, outputs_);
        const float* inputs = inputs_ + i * chunk_ * input_stride_ + c;
        for (; k < last; k += ROWS) {
            const float* grads = grads_ + i * chunk_ * grad_stride_ + k;
            float* sums = sums_ + (i * outputs_ + k) * padded_channels_ + c;
            accumulation(std::min(ROWS, last - k), vectors)(*this, grads, inputs, tiles, sums, first);
        }
    }

    template <int rows, int vectors>
    static void accumulate(const KernelGradient& self, const float* grads, const float* inputs, long tiles, float* sums,
                           bool first) {
        const long part = divided_up(tiles, divided_up(tiles, self.tiles_at_once_));
        for (; tiles > 0; tiles -= part, first = false) {
            Vector sum[rows][vectors] = {};
            for (long t = std::min(tiles, part); t > 0; --t, grads += self.grad_stride_, inputs += self.input_stride_)
#pragma GCC unroll 8
                for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
                    for (int v = 0; v < vectors; ++v) sum[r][v] += grads[r] * load(inputs + v * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
                for (int v = 0; v < vectors; ++v) {
                    float* to = sums + r * self.padded_channels_ + v * LANES;
                    store(to, first ? sum[r][v] : load(to) + sum[r][v]);
                }
        }
    }

    typedef void (*Accumulation)(const KernelGradient&, const float*, const float*, long, float*, bool);

    template <int most_rows = ROWS, int most_vectors = WIDE>
    static Accumulation accumulation(long rows, long vectors) {
        if constexpr (most_rows > 1)
            if (rows < most_rows) return accumulation<most_rows - 1, most_vectors>(rows, vectors);
        if constexpr (most_vectors > 1)
            if (vectors < most_vectors) return accumulation<most_rows, most_vectors - 1>(rows, vectors);
        return accumulate<most_rows, most_vectors>;
    }

    void finish(long k, float* kernel) const {
        for (long c = 0; c < padded_channels_; c += LANES) {
            Vector g[36];
            for (long i = 0; i < 36; ++i) g[i] = load(sums_ + (i * outputs_ + k) * padded_channels_ + c);
            for (int q = 0; q < 6; ++q) transform_kernel_gradient<6>(g + q);
            for (int r = 0; r < 3; ++r) transform_kernel_gradient<1>(g + 6 * r);
            for (long i = 0; i < 9; ++i)
                store_first(kernel + (9 * k + i) * channels_ + c, g[i / 3 * 6 + i % 3], channels_ - c);
        }
    }
};

template <typename Element>
void transform_kernel(const Weight& from, const float* bias, Element* kernels, long threads, Parallel parallel) {
    const long padded = rounded_up(from.outputs, LANES), part = 64, parts = divided_up(from.channels, part);
    const long plane = kernel_plane(from.channels, from.outputs);
    use_large_pages(reinterpret_cast<float*>(kernels), 36 * plane / PAIR<Element>);
    for_each(padded / LANES * parts, threads, parallel, [&](long item) {
        const long k = item / parts * LANES, first = item % parts * part;
        const long panel = k / PANEL * PANEL, panel_width = std::min(PANEL, padded - panel);
        Element* to = kernels + panel * from.channels + first * panel_width + (k - panel) * PAIR<Element>;
        from.transform(k, first, std::min(part, from.channels - first), to, plane, panel_width);
    });
    float* biases = reinterpret_cast<float*>(kernels + 36 * plane);
    for (long k = 0; k < padded; ++k) biases[k] = bias && k < from.outputs ? bias[k] : 0;
}

// False where memory is short. Blocks have so many tiles; `parts` threads share one, and each takes some of the output channels.
template <typename Element>
bool convolve(const Convolution<Element>& layer, long size, long parts, long threads, Parallel parallel) {
    const long part = divided_up(divided_up(layer.outputs, PANEL), parts) * PANEL, tiles = layer.tiles();
    const long used_parts = divided_up(layer.padded_outputs(), part);
    std::atomic<bool> failed{false};
    for_each(divided_up(tiles, size) * used_parts, threads, parallel, [&](long item) {
        const long tile = item / used_parts * size, output = item % used_parts * part;
        const long outputs = std::min(part, layer.padded_outputs() - output);
        if (!Block<Element>(layer, tile, std::min(size, tiles - tile), output, outputs).compute()) failed = true;
    });
    return !failed;
}

// Call `work` with a float, or with a BFloat16 where the processor multiplies those and `bfloat16` is not 0.
template <typename Work>
void with_element([[maybe_unused]] long bfloat16, const Work& work) {
#ifdef __AVX512BF16__
    if (bfloat16) return work(BFloat16());
#endif
    work(float());
}

}  // namespace

extern "C" {

// 1 where the functions below can multiply in bfloat16.
int segnet_has_bfloat16() {
    int has = 0;
    with_element(1, [&](auto element) { has = sizeof element < sizeof(float); });
    return has;
}

// The number of floats that `kernels` takes.
long segnet_kernel_size(long channels, long outputs, long bfloat16) {
    return 36 * kernel_plane(channels, outputs) / (bfloat16 ? 2 : 1) + rounded_up(outputs, LANES);
}

// The elements of `weight`, (K, C, 3, 3), are so many floats apart. With `flipped` its rows and columns are taken in reverse
// order. `bias` is (K), or null for zeros. With `bfloat16` the kernels are for multiplication in it.
void segnet_transform_kernel(const float* weight, const float* bias, void* kernels, long channels, long outputs, long next_output,
                             long next_channel, long next_row, long next_column, long flipped, long bfloat16, long threads,
                             Parallel parallel) {
    const Weight from{weight, channels, outputs, next_output, next_channel, next_row, next_column, flipped != 0};
    with_element(bfloat16, [&](auto element) {
        transform_kernel(from, bias, static_cast<decltype(element)*>(kernels), threads, parallel);
    });
}

// Returns 0, or 1 where memory is short. The pointers are those of `Convolution`; `parallel` may be null for one thread.
int segnet_convolve(const float* x, const uint8_t* places, const void* kernels, float* out, uint8_t* winners, long batch,
                    long height, long width, long channels, long outputs, long relu, long bfloat16, long threads,
                    Parallel parallel) {
    bool done = false;
    use_large_pages(out, (winners ? divided_up(height, 2) * divided_up(width, 2) : height * width) * batch * outputs);
    with_element(bfloat16, [&](auto element) {
        const Convolution<decltype(element)> layer{
            x, places, static_cast<const decltype(element)*>(kernels), out, winners, batch, height, width, channels, outputs,
            relu != 0, {}, nullptr};
        const long tiles = layer.tiles(), panels = divided_up(outputs, PANEL);
        // A thread that has few tiles spends its time on loading kernels: threads then share tiles, and each takes some channels.
        const long parts = std::clamp(FEW_TILES * threads / tiles, 1L, std::min(panels, threads));
        const long blocks = rounded_up(divided_up(tiles, MOST_TILES), divided_up(threads, parts));
        done = convolve(layer, rounded_up(divided_up(tiles, blocks), ROWS), parts, threads, parallel);
    });
    return !done;
}

// The same without transformed kernels and ReLU, for layers with many channels and few tiles: each thread transforms a part
// of the kernels when it needs it, which takes less time than writing and reading them all. `weight` and `bias` are those of
// segnet_transform_kernel.
int segnet_convolve_few_tiles(const float* x, const float* weight, const float* bias, float* out, long batch, long height,
                              long width, long channels, long outputs, long next_output, long next_channel, long next_row,
                              long next_column, long flipped, long bfloat16, long threads, Parallel parallel) {
    const Weight from{weight, channels, outputs, next_output, next_channel, next_row, next_column, flipped != 0};
    bool done = false;
    with_element(bfloat16, [&](auto element) {
        const Convolution<decltype(element)> layer{
            x, nullptr, nullptr, out, nullptr, batch, height, width, channels, outputs, false, from, bias};
        const long tiles = layer.tiles(), blocks = divided_up(tiles, MOST_TILES_AT_ONCE);
        const long parts = std::min(divided_up(threads, blocks), divided_up(outputs, PANEL));
        done = convolve(layer, rounded_up(divided_up(tiles, blocks), ROWS), parts, threads, parallel);
    });
    return !done;
}

// The number of floats in `memory`.
long segnet_gradient_size(long batch, long height, long width, long channels, long outputs) {
    return KernelGradient(nullptr, nullptr, batch, height, width, channels, outputs, channels > outputs).floats();
}

// Returns 0, or 1 where memory is short. x is (batch, H, W, C), `grad` (batch, H, W, K), `kernel` (K, 3, 3, C), `bias` (K), or (C)
// with `sums_input`.
int segnet_kernel_gradient(const float* x, const float* grad, float* memory, float* kernel, float* bias, long batch, long height,
                           long width, long channels, long outputs, long sums_input, long threads, Parallel parallel) {
    KernelGradient gradient(x, grad, batch, height, width, channels, outputs, sums_input != 0);
    return !gradient.compute(memory, kernel, bias, threads, parallel);
}
}
