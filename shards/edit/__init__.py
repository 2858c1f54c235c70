"""Operations that make a cache from other caches: withdraw, merge, hydrate, publish and fetch."""
