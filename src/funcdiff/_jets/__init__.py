"""Jets: a value with its first and second derivatives, and the rule of each torch operation."""

from funcdiff._jets import activations as activations  # each module of rules registers them when it is imported
from funcdiff._jets import attention as attention
from funcdiff._jets import cumulative as cumulative
from funcdiff._jets import distances as distances
from funcdiff._jets import lengths as lengths
from funcdiff._jets import linear_algebra as linear_algebra
from funcdiff._jets import losses as losses
from funcdiff._jets import recurrent as recurrent
from funcdiff._jets import sinc as sinc
from funcdiff._jets import singular as singular
