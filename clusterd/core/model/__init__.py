"""The nouns: what profiles, clusters, engines, launches and tasks are. No behaviour beyond validation and naming."""
