"""Types that everything shares. Standard library only; imports nothing else of ours."""
