//! control-plane/core
