//! Networking: validator mesh, transaction gossip, block fetch. The only user of libp2p.
