"""Recipes: files that say with which engines, options and machines a run is made; those that come with Mathlete."""
