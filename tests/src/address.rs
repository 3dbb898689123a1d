//! Loopback addresses that no other test uses.
//!
//! Linux answers on all of 127.0.0.0/8, so that every server gets an address of its own and keeps
//! its usual ports: nothing has to be asked of the kernel and then lost to somebody else before
//! it is used, and a server comes back on the same address after a restart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Bound for as long as an address is claimed; below the range of ephemeral ports.
const CLAIM_PORT: u16 = 2300;

/// An address of this machine that is nobody else's for as long as this value lives.
#[derive(Debug)]
pub struct Loopback {
    ip: Ipv4Addr,
    _claim: TcpListener,
}

impl Loopback {
    /// Claims an address.
    ///
    /// # Errors
    ///
    /// When none of many is free, which means that this machine has no 127.0.0.0/8.
    pub fn claim() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes start in different places, so that they seldom meet; the claim decides.
        let home = std::process::id().wrapping_mul(257);
        for _ in 0..1000 {
            let place = home.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let [_, b, c, d] = place.to_be_bytes();
            // 127.0.*.* is left to everybody else, and last octets 0 and 255 to nobody.
            let ip = Ipv4Addr::new(127, b | 64, c, 1 + d % 254);
            if let Ok(claim) = TcpListener::bind((ip, CLAIM_PORT)) {
                return Ok(Loopback { ip, _claim: claim });
            }
        }
        bail!("found no free loopback address: does this machine answer on all of 127.0.0.0/8?")
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(self.ip)
    }

    /// A port on this address.
    pub fn port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_given_twice() {
        let claimed: Vec<_> = (0..50).map(|_| Loopback::claim().unwrap()).collect();
        let mut ips: Vec<_> = claimed.iter().map(Loopback::ip).collect();
        ips.sort();
        ips.dedup();
        assert_eq!(ips.len(), claimed.len());
    }
}
