"""The hash of the compiled leaves: keyed, since peers choose what is hashed."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef FLOWVIS_HASHING
    #define FLOWVIS_HASHING
    #include <stdint.h>
    #include <string.h>

    /* 64 x 64 -> 128 bit multiply, folded: the mixing step of the wyhash family. */
    static inline uint64_t flowvis_mix(uint64_t a, uint64_t b) {
        __uint128_t product = (__uint128_t)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }

    static inline uint64_t flowvis_load(const uint8_t *at, uint32_t length) {
        uint64_t value = 0;
        memcpy(&value, at, length);
        return value;
    }

    static inline uint32_t flowvis_hash(const uint8_t *data, uint32_t length, uint64_t seed) {
        uint64_t state = seed ^ ((uint64_t)length * 0x9E3779B97F4A7C15ull);
        while (length > 8) {
            uint64_t word;
            memcpy(&word, data, 8);
            state = flowvis_mix(state ^ word, 0xD6E8FEB86659FD93ull ^ seed);
            data += 8;
            length -= 8;
        }
        state = flowvis_mix(state ^ flowvis_load(data, length), 0xA0761D6478BD642Full);
        return (uint32_t)(state ^ (state >> 32));
    }
    #endif
    """
    uint32_t flowvis_hash(const uint8_t *data, uint32_t length, uint64_t seed) nogil
