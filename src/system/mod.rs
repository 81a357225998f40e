//! Everything that talks to the kernel beyond what `std` and `nix` offer.
