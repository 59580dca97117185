"""Kernels in C++ for the CPU, and what builds, loads and calls them."""
