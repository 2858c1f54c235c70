"""Operations that make a new cache from existing ones."""
