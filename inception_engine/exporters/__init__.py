"""Network -> other formats.

onnx              Network -> ONNX; onnx_parity: held against the reference
command           `inception export onnx`
tensorrt          ONNX -> TensorRT engine
tensorrt_check    the engine beside ONNX Runtime
tensorrt_file     its file and record; nvidia: the GPU that it is for
tensorrt_command  `inception export tensorrt`
"""
