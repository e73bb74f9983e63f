"""Names of Keras layers and operations that multiply nothing."""

WITHOUT_MACS = """
    Absolute Add Clip Cos Divide Exp Expm1 Floor Log Log1p Maximum Minimum
    Multiply Negative Power Reciprocal Round Sign Sin Sqrt Square Subtract
    Tanh TrueDivide Where
    Celu Elu Gelu Glu HardSigmoid HardSilu HardTanh LeakyRelu LogSigmoid
    LogSoftmax Relu Relu6 Selu Sigmoid Silu Softmax Softplus Softsign
    Amax Amin AveragePool BatchNorm LayerNorm Max MaxPool Mean Min Moments
    Normalize RMSNorm Std Sum Var
    BroadcastTo Cast Concatenate DepthToSpace ExpandDims Flip GetItem Moveaxis
    Pad Ravel Repeat Reshape Roll SpaceToDepth Split Squeeze Stack
    StopGradient Swapaxes Take Tile Transpose
    CustomScaleLayer LayerScale StochasticDepth
"""
VIEWS = """
    ActivityRegularization AlphaDropout Dropout Flatten GaussianDropout
    GaussianNoise Identity InputLayer Masking RandomBrightness RandomContrast
    RandomCrop RandomFlip RandomRotation RandomTranslation RandomZoom Reshape
    SpatialDropout1D SpatialDropout2D SpatialDropout3D
    ExpandDims Ravel Squeeze StopGradient StochasticDepth
"""
