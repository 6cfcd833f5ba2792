"""conf/ecs/estat.yaml as a reviewer reads it: Security Hub's controls, rights and secrets.

docs/deploy.md says that the template passes the controls, and lists those that it passes with a
parameter only, or not. A check here says what its control asks for, as far as a template can show
it, of the resources that CloudFormation would make for the given parameters.
https://docs.aws.amazon.com/securityhub/latest/userguide/securityhub-controls-reference.html
"""

import re
from collections.abc import Callable
from typing import Any

import pytest

from estat.config.settings import Settings
from tests.support.cloudformation import ACCOUNT, REGION, Template
from tests.support.page import rows, sections
from tests.support.server import ROOT

TEMPLATE = ROOT / "conf" / "ecs" / "estat.yaml"
REQUIRED = {
    "VpcId": "vpc-1",
    "PublicSubnetA": "subnet-1",
    "PublicSubnetB": "subnet-2",
    "PrivateSubnetA": "subnet-3",
    "PrivateSubnetB": "subnet-4",
    "CertificateArn": f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/1",
    "Image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/estat-ingest:1",
    "RepositoryArn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/estat-ingest",
}
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0199"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:keys-AbCdEf"
PARAMETER = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/estat/ip-hash-key"
EVERYTHING = {
    "Storage": "efs",
    "AccessLogsBucket": "logs",
    "KmsKeyArn": KEY,
    "FallbackBucket": "other",
    "WriteKeysSecretArn": SECRET,
    "IpHashKeySecretArn": PARAMETER,
    "SettingsFileArn": "arn:aws:s3:::conf/prod.env",
}
#: Recommended by ELB.17; without those that end TLS 1.2.
TLS_POLICIES = re.compile(r"ELBSecurityPolicy-TLS13-1-2-Res-(FIPS-)?(PQ-)?20\d\d-\d\d")


class Made:
    """What a stack with the given parameters is made of."""

    def __init__(self, **parameters: str) -> None:
        self._template = Template(TEMPLATE, REQUIRED | parameters)
        self._resources = self._template.resources({})

    def every(self, kind: str) -> list[dict[str, Any]]:
        """Return the properties of all resources of a type, e.g. ``S3::Bucket``."""
        named = self._resources.items()
        return [made for name, made in named if self._template.type_of(name) == f"AWS::{kind}"]

    def one(self, kind: str) -> dict[str, Any]:
        (made,) = self.every(kind)
        return made

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.one("ECS::TaskDefinition")["ContainerDefinitions"]
        return container

    @property
    def balancer(self) -> dict[str, str]:
        attributes = self.one("ElasticLoadBalancingV2::LoadBalancer")["LoadBalancerAttributes"]
        return {each["Key"]: each["Value"] for each in attributes}

    def listener(self, protocol: str) -> dict[str, Any]:
        listeners = self.every("ElasticLoadBalancingV2::Listener")
        (found,) = (each for each in listeners if each["Protocol"] == protocol)
        return found

    def rights(self, role: str = "") -> list[dict[str, Any]]:
        """Return the statements of the roles whose logical id begins so."""
        return [
            statement
            for name, made in self._resources.items()
            if self._template.type_of(name) == "AWS::IAM::Role" and name.startswith(role)
            for policy in made["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
        ]

    def declared(self, parameter: str) -> dict[str, Any]:
        found: dict[str, Any] = self._template.document["Parameters"][parameter]
        return found

    def open_ports(self) -> set[int]:
        """Return the ports that the whole internet may reach."""
        groups = self.every("EC2::SecurityGroup")
        rules = [rule for group in groups for rule in group.get("SecurityGroupIngress", ())]
        rules += self.every("EC2::SecurityGroupIngress")
        return {rule["FromPort"] for rule in rules if rule.get("CidrIp") == "0.0.0.0/0"}


Check = Callable[[Made], bool]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def reads(kind: str, path: str, *values: Any) -> Check:
    """Check that every resource of a type has one of the values there; None: that it has none."""

    def found(properties: Any) -> Any:
        for step in path.split("."):
            properties = properties[int(step)] if step.isdigit() else properties.get(step)
            if properties is None:
                return None
        return properties

    return lambda made: all(found(each) in values for each in made.every(kind))


def balancer_reads(name: str, *values: str) -> Check:
    return lambda made: made.balancer.get(name) in values


def is_private(made: Made) -> bool:
    blocked = made.one("S3::Bucket")["PublicAccessBlockConfiguration"]
    return len(blocked) == 4 and all(blocked.values())


def is_tls_only(made: Made) -> bool:
    everything = ["arn:aws:s3:::Bucket", "arn:aws:s3:::Bucket/*"]
    policy = made.one("S3::BucketPolicy")["PolicyDocument"]["Statement"]
    return any(
        (each["Effect"], each["Principal"], each["Action"]) == ("Deny", "*", "s3:*")
        and each["Resource"] == everything
        and each["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for each in policy
    )


def allows_nobody(made: Made) -> bool:
    policy = made.one("S3::BucketPolicy")["PolicyDocument"]["Statement"]
    return all(each["Effect"] == "Deny" for each in policy)


def allows_no_service_whole(made: Made) -> bool:
    actions = [action for each in made.rights() for action in listed(each["Action"])]
    return not [action for action in actions if action.split(":")[-1] == "*"]


def mounts_encrypted(made: Made) -> bool:
    volumes = made.one("ECS::TaskDefinition")["Volumes"]
    mounted = [each["EFSVolumeConfiguration"] for each in volumes if len(each) > 1]
    return all(each["TransitEncryption"] == "ENABLED" for each in mounted)


def redirects_to_https(made: Made) -> bool:
    action = made.listener("HTTP")["DefaultActions"][0]
    return bool(action["RedirectConfig"]["Protocol"] == "HTTPS")


def decrypts_with_one_key(made: Made) -> bool:
    decrypting = [each for each in made.rights() if "kms:Decrypt" in listed(each["Action"])]
    return all(each["Resource"] == KEY for each in decrypting)


def opens_443_and_80(made: Made) -> bool:
    return made.open_ports() == {80, 443}


_BUCKET, _TASK, _TARGETS = (
    "S3::Bucket",
    "ECS::TaskDefinition",
    "ElasticLoadBalancingV2::TargetGroup",
)
_CONTAINER = "ContainerDefinitions.0"
_ENCRYPTION = "BucketEncryption.ServerSideEncryptionConfiguration.0.ServerSideEncryptionByDefault"

CONTROLS: dict[str, Check] = {
    "S3.2": is_private,
    "S3.3": is_private,
    "S3.5": is_tls_only,
    "S3.6": allows_nobody,
    "S3.7": lambda made: "ReplicationConfiguration" in made.one(_BUCKET),
    "S3.8": is_private,
    "S3.9": reads(_BUCKET, "LoggingConfiguration.DestinationBucketName", "logs"),
    "S3.11": lambda made: "NotificationConfiguration" in made.one(_BUCKET),
    "S3.12": reads(_BUCKET, "OwnershipControls.Rules.0.ObjectOwnership", "BucketOwnerEnforced"),
    "S3.13": reads(_BUCKET, "LifecycleConfiguration.Rules.0.Status", "Enabled"),
    "S3.14": reads(_BUCKET, "VersioningConfiguration.Status", "Enabled"),
    "S3.15": reads(_BUCKET, "ObjectLockEnabled", True),
    "S3.17": reads(_BUCKET, _ENCRYPTION, {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}),
    "ELB.1": redirects_to_https,
    "ELB.4": balancer_reads("routing.http.drop_invalid_header_fields.enabled", "true"),
    "ELB.5": balancer_reads("access_logs.s3.bucket", "logs"),
    "ELB.6": balancer_reads("deletion_protection.enabled", "true"),
    "ELB.12": balancer_reads("routing.http.desync_mitigation_mode", "defensive", "strictest"),
    "ELB.13": lambda made: len(made.one("ElasticLoadBalancingV2::LoadBalancer")["Subnets"]) > 1,
    "ELB.16": lambda made: bool(made.every("WAFv2::WebACLAssociation")),
    "ELB.17": lambda made: bool(TLS_POLICIES.fullmatch(made.listener("HTTPS")["SslPolicy"])),
    "ELB.18": reads("ElasticLoadBalancingV2::Listener", "Protocol", "HTTPS"),
    "ELB.21": reads(_TARGETS, "HealthCheckProtocol", "HTTPS"),
    "ELB.22": reads(_TARGETS, "Protocol", "HTTPS"),
    "ECS.2": reads(
        "ECS::Service", "NetworkConfiguration.AwsvpcConfiguration.AssignPublicIp", "DISABLED"
    ),
    "ECS.3": reads(_TASK, "PidMode", None),
    "ECS.4": reads(_TASK, f"{_CONTAINER}.Privileged", None),
    "ECS.5": reads(_TASK, f"{_CONTAINER}.ReadonlyRootFilesystem", True),
    "ECS.8": lambda made: "AWS_SECRET_ACCESS_KEY" not in str(made.container["Environment"]),
    "ECS.9": reads(_TASK, f"{_CONTAINER}.LogConfiguration.LogDriver", "awslogs"),
    "ECS.10": reads("ECS::Service", "PlatformVersion", None, "LATEST"),
    "ECS.12": reads(
        "ECS::Cluster", "ClusterSettings.0", {"Name": "containerInsights", "Value": "enabled"}
    ),
    "ECS.17": reads(_TASK, "NetworkMode", "awsvpc"),
    "ECS.18": mounts_encrypted,
    "ECS.20": lambda made: made.container["User"].split(":")[0] not in ("0", "root"),
    "EFS.1": reads("EFS::FileSystem", "Encrypted", True),
    "EFS.2": reads("EFS::FileSystem", "BackupPolicy.Status", "ENABLED"),
    "EFS.3": reads("EFS::AccessPoint", "RootDirectory.Path", "/estat"),
    "EFS.4": reads("EFS::AccessPoint", "PosixUser", {"Uid": "65532", "Gid": "65532"}),
    "EFS.7": reads("EFS::FileSystem", "BackupPolicy.Status", "ENABLED"),
    "EFS.8": reads("EFS::FileSystem", "Encrypted", True),
    "IAM.1": allows_no_service_whole,
    "IAM.21": allows_no_service_whole,
    "KMS.2": decrypts_with_one_key,
    "EC2.18": opens_443_and_80,
    "EC2.19": opens_443_and_80,
    "SNS.1": lambda made: "KmsMasterKeyId" in made.one("SNS::Topic"),
    "SNS.4": lambda made: not made.every("SNS::TopicPolicy"),
    "CloudWatch.15": lambda made: all(a["AlarmActions"] for a in made.every("CloudWatch::Alarm")),
    "CloudWatch.16": lambda made: int(made.one("Logs::LogGroup")["RetentionInDays"]) >= 365,
    "CloudWatch.17": reads("CloudWatch::Alarm", "ActionsEnabled", None, True),
}


def told() -> dict[str, str]:
    """Return what the page says of the controls that do not just pass."""
    table = rows(sections("docs/deploy.md")["ECS"].split("### Security Hub's controls")[1])
    return {control: row[-1] for row in table for control in row[0].split(", ")}


def is_so(control: str, outcome: str) -> bool:
    passes = CONTROLS[control]
    if outcome == "passed":
        return all(map(passes, (Made(), Made(Storage="efs"), Made(**EVERYTHING))))
    if parameter := re.fullmatch(r"with `(\w+)=(.+)`", outcome):
        given = {parameter[1]: parameter[2].replace("…", KEY)}
        return not passes(Made()) and passes(Made(**given))
    # of what is not made nothing can fail
    return outcome.startswith("excepted: ") and not passes(Made(Storage="efs"))


def test_the_template_does_with_each_control_what_the_page_says():
    outcomes = dict.fromkeys(CONTROLS, "passed") | told()
    assert set(outcomes) == set(CONTROLS)
    assert [each for each in outcomes.items() if not is_so(*each)] == []


# --- rights


def test_no_right_is_to_everything_but_one_that_ecr_knows_no_narrower():
    rights = Made(**EVERYTHING).rights()
    wide = [each["Action"] for each in rights if "*" in listed(each["Resource"])]
    assert wide == ["ecr:GetAuthorizationToken"]
    elsewhere = [each for each in rights if ":*:" in str(each["Resource"])]
    assert elsewhere == []


def test_without_a_repository_nothing_may_be_asked_of_ecr():
    assert "ecr:" not in str(Made(RepositoryArn="").rights())


@pytest.mark.parametrize("given", ["", "999900001111"])
def test_objects_are_read_and_written_in_the_accounts_of_their_buckets_alone(given):
    rights = Made(**EVERYTHING, FallbackAccount=given).rights()
    accounts = {
        str(resource).split(":::")[1].split("/")[0]: each["Condition"]["StringEquals"]
        for each in rights
        for resource in listed(each["Resource"])
        if ":s3:::" in resource
    }
    ours, fallback = ({"aws:ResourceAccount": account} for account in (ACCOUNT, given or ACCOUNT))
    assert accounts == {"Bucket": ours, "conf": ours, "other": fallback}


def test_the_file_system_is_reached_by_tls_and_the_access_point_alone():
    made = Made(Storage="efs")
    policy = made.one("EFS::FileSystem")["FileSystemPolicy"]["Statement"]
    assert {each["Effect"] for each in policy} == {"Deny"}
    assert {"Bool": {"aws:SecureTransport": "false"}} in [each["Condition"] for each in policy]
    (mount,) = (each for each in made.rights("Task") if "elasticfilesystem" in str(each["Action"]))
    point = f"arn:aws:elasticfilesystem:{REGION}:{ACCOUNT}:access-point/AccessPoint"
    assert mount["Condition"] == {"StringEquals": {"elasticfilesystem:AccessPointArn": point}}


# --- secrets


def test_secrets_come_from_where_secrets_are_kept_and_never_stand_in_the_task_definition():
    made = Made(**EVERYTHING)
    kept = {each["Name"]: each["ValueFrom"] for each in made.container["Secrets"]}
    assert kept == {"WRITE_KEYS": SECRET, "IP_HASH_KEY": PARAMETER}
    declared = {field.name.upper(): field for field in Settings.__dataclass_fields__.values()}
    secret = {name for name, each in declared.items() if each.metadata["declaration"].secret}
    assert secret == set(kept)
    assert secret.isdisjoint(each["Name"] for each in made.container["Environment"])
    readable = {
        each["Resource"]
        for each in made.rights("Execution")
        if {"secretsmanager:GetSecretValue", "ssm:GetParameters"} & set(listed(each["Action"]))
    }
    assert readable == set(kept.values())


@pytest.mark.parametrize(
    ("parameter", "bad"),
    [
        ("WriteKeysSecretArn", "secret-key-1"),  # the key itself
        ("IpHashKeySecretArn", f"{SECRET}:member::"),  # rights are to the whole secret
        ("IpHashKeySecretArn", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/*"),
        ("RepositoryArn", f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/*"),
        ("RepositoryArn", REQUIRED["Image"]),
        ("KmsKeyArn", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/*"),
        ("KmsKeyArn", f"arn:aws:kms:*:{ACCOUNT}:key/0199"),
        ("SettingsFileArn", "arn:aws:s3:::*/prod.env"),
        ("FallbackBucket", "*"),
        ("FallbackAccount", "*"),
    ],
)
def test_a_parameter_that_would_open_more_is_refused(parameter, bad):
    assert re.search(Made().declared(parameter)["AllowedPattern"], EVERYTHING.get(parameter, ""))
    assert not re.search(Made().declared(parameter)["AllowedPattern"], bad)
