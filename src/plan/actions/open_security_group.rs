//! Told: the security group's inbound rule for the port, scoped to the asker's own address.

use super::{arg, browser_port, told};
use crate::facts::{Facts, TargetFacts};
use crate::model::{ActionName, AddressSource, Finding, Step, Text, Tier};

pub(super) fn step(_facts: &Facts<'_>, target: &TargetFacts<'_>, finding: &Finding) -> Result<Step, Text> {
    let unknown = || Text::new("action.open-security-group.unknown");
    let address = target.reach.address.ok_or_else(unknown)?;
    let port = browser_port(target).ok_or_else(unknown)?;
    // The group is looked up by the instance's address, so that the line runs as it is printed.
    let filter = match address.source {
        AddressSource::InternalIp => "private-ip-address",
        _ => "ip-address",
    };
    let group = format!(
        "$(aws ec2 describe-instances --filters Name={filter},Values={} --query 'Reservations[0].Instances[0].SecurityGroups[0].GroupId' --output text)",
        address.ip
    );
    let rule = |verb: &str| {
        format!(
            "aws ec2 {verb}-security-group-ingress --group-id {group} --protocol tcp --port {port} --cidr $(curl -s https://checkip.amazonaws.com)/32"
        )
    };
    let mut step = told(ActionName::OpenSecurityGroup, Tier::T6, target, finding, rule("authorize"), rule("revoke"));
    arg(&mut step, "port", port);
    arg(&mut step, "address", address.ip);
    Ok(step)
}
