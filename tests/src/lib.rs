//! Helpers of the whole-system tests: programs started and ended by id, free ports, folders of their own, loud skips.
