//! The role file: how a hot standby learns its role without being restarted.

use conclave_core::ids::{ElectionName, NodeName, Token};
use serde::{Deserialize, Serialize};

/// A role file's content, as JSON. A missing file means standby.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// This node's role.
    pub role: RoleWord,
    /// The fencing token of the standing term: this node's own, or else the holder's.
    pub token: Option<Token>,
    /// The holder, as far as this node knows.
    pub holder: Option<NodeName>,
    /// The election.
    pub election: ElectionName,
    /// This node.
    pub node: NodeName,
}

/// A role, as a role file spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleWord {
    /// This node leads, and says so itself.
    Leader,
    /// Anything else.
    Standby,
}

impl RoleRecord {
    /// This node leads.
    pub fn leader(election: &ElectionName, node: &NodeName, token: Token) -> Self {
        RoleRecord {
            role: RoleWord::Leader,
            token: Some(token),
            holder: Some(node.clone()),
            election: election.clone(),
            node: node.clone(),
        }
    }

    /// This node does not lead; perhaps another does.
    pub fn standby(
        election: &ElectionName,
        node: &NodeName,
        holder: Option<&(NodeName, Token)>,
    ) -> Self {
        RoleRecord {
            role: RoleWord::Standby,
            token: holder.map(|(_, token)| *token),
            holder: holder.map(|(name, _)| name.clone()),
            election: election.clone(),
            node: node.clone(),
        }
    }

    /// As it stands in the file: one line.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a file's content; `None` when it is not this election's role file.
    pub fn from_json(bytes: &[u8], election: &ElectionName) -> Option<Self> {
        serde_json::from_slice::<RoleRecord>(bytes)
            .ok()
            .filter(|record| record.election == *election)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_leads() {
        let (election, node) = ("masters".into(), "a".into());
        let leader = RoleRecord::leader(&election, &node, Token(7));
        assert_eq!(
            String::from_utf8(leader.to_json()).unwrap(),
            "{\"role\":\"leader\",\"token\":7,\"holder\":\"a\",\"election\":\"masters\",\
             \"node\":\"a\"}\n"
        );
        let standby = RoleRecord::standby(&election, &node, Some(&("b".into(), Token(9))));
        assert_eq!(
            String::from_utf8(standby.to_json()).unwrap(),
            "{\"role\":\"standby\",\"token\":9,\"holder\":\"b\",\"election\":\"masters\",\
             \"node\":\"a\"}\n"
        );
        let unknown = RoleRecord::standby(&election, &node, None);
        assert_eq!(
            String::from_utf8(unknown.to_json()).unwrap(),
            "{\"role\":\"standby\",\"token\":null,\"holder\":null,\"election\":\"masters\",\
             \"node\":\"a\"}\n"
        );
        assert_eq!(RoleRecord::from_json(&leader.to_json(), &election), Some(leader.clone()));
        assert_eq!(RoleRecord::from_json(&leader.to_json(), &"other".into()), None);
        assert_eq!(RoleRecord::from_json(b"somebody else's", &election), None);
    }
}
